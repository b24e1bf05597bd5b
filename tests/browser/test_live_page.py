"""The page in a real browser, beside real runs."""

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import long_studies
from lorascope.errors import InputError
from lorascope.records import StepRecord, TrialRecord
from lorascope.store import StudyStore
from support.browser import address_in, program

Open = Callable[..., Any]
StudyFile = Callable[..., Path]
HERE = {"127.0.0.1"}
TOTAL_STEPS = 80


def recorded(folder: Path) -> dict[str, dict[int, float]]:
    """Loss of every step in the store."""
    with StudyStore.open(folder / "study.db") as store:
        return {
            trial.trial_id: {
                record.step: record.nats / record.target_tokens
                for record in store.read(StepRecord, trial_id=trial.trial_id)
            }
            for trial in store.read(TrialRecord)
        }


def check_lines(lines: dict[str, list[list[float]]], folder: Path) -> None:
    """Every step is in exactly one point, in order, and the lowest and the highest are those of its steps."""
    for name, losses in recorded(folder).items():
        points = lines[name]
        assert [point[0] for point in points] == sorted({point[0] for point in points})
        assert points[-1][1] == max(losses)
        before = 0
        for _, last, mean, low, high in points:
            inside = [losses[step] for step in range(before + 1, int(last) + 1)]
            assert low == pytest.approx(min(inside), rel=1e-12)
            assert high == pytest.approx(max(inside), rel=1e-12)
            assert low <= mean * (1 + 1e-12)
            assert mean <= high * (1 + 1e-12)
            before = int(last)


def wait_for_end(page: str) -> bool:
    """Say whether an address stops being served within some seconds."""
    parts = urlsplit(page)
    for _ in range(100):
        try:
            socket.create_connection((parts.hostname, parts.port), timeout=2).close()
        except OSError:
            return True
        time.sleep(0.2)
    return False


def wait_for_steps(run: subprocess.Popen[str], folder: Path, count: int) -> None:
    """Wait until a run has recorded so many steps, and hold it there."""
    done = 0
    while done < count:
        assert run.poll() is None, run.communicate()[0]
        time.sleep(0.1)
        with contextlib.suppress(InputError):  # there is no store yet
            done = min(map(len, recorded(folder).values()), default=0)
    run.send_signal(signal.SIGSTOP)


@pytest.mark.timeout(300)
def test_a_run_is_watched_killed_continued_and_watched_to_its_end(
    visit: Open, study_file: StudyFile, tmp_path: Path
) -> None:
    """The run is held now and then, so that what is seen does not depend on who is faster."""
    study, folder = study_file(max_steps=400, eval_steps=100), tmp_path / "study"
    with program("run", study, "--out", folder) as run:
        wait_for_steps(run, folder, 20)
        with program("serve", folder, "--port", 0) as server:
            seen = visit(address_in(server))
            seen.state("running")
            seen.points(">= 40")
            before = seen.lines("train")
            run.send_signal(signal.SIGCONT)
            wait_for_steps(run, folder, int(before["r2"][-1][1]) + 5)
            seen.points(f"> {sum(map(len, before.values()))}")
            check_lines(seen.lines("train"), folder)
            seen.page.reload()
            seen.points(f"> {sum(map(len, before.values()))}")
            check_lines(seen.lines("train"), folder)

            run.send_signal(signal.SIGKILL)
            run.wait()
            seen.state("interrupted")
            assert "The same command continues the study" in seen.page.inner_text("[data-part=status]")

            with program("run", study, "--out", folder) as again:
                seen.state("running")
                said = again.communicate(timeout=150)[0]
                assert again.returncode == 0, said
            seen.state("finished")
            check_lines(seen.lines("train"), folder)
            assert [point[1] for point in seen.lines("eval")["r2"]] == [0, 100, 200, 300, 400]
            assert "2 trials are complete" in seen.page.inner_text("[data-part=status]")
            seen.wait("document.querySelector('[data-part=result] .verdict')")
            assert seen.asked == HERE
            assert seen.errors == []


def test_a_new_point_is_seen_within_two_seconds(visit: Open, growing: Path) -> None:
    with program("serve", growing, "--port", 0) as server:
        seen = visit(address_in(server))
        seen.points("=== 120")
        seen.page.wait_for_timeout(2000)
        for step in (41, 42, 43):
            long_studies.append(growing, step, total_steps=TOTAL_STEPS)
            began = time.monotonic()
            seen.points(f"=== {3 * step}")
            assert time.monotonic() - began < 2.0


def test_a_lost_connection_misses_nothing_and_repeats_nothing(visit: Open, growing: Path) -> None:
    """The server dies, the study grows, and another server takes its place."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with program("serve", growing, "--port", port) as server:
        seen = visit(address_in(server))
        seen.points("=== 120")
    seen.wait("!document.getElementById('lost').hidden")
    long_studies.append(growing, 41, total_steps=TOTAL_STEPS)
    with program("serve", growing, "--port", port):
        long_studies.append(growing, 42, total_steps=TOTAL_STEPS)
        seen.points("=== 126")
        check_lines(seen.lines("train"), growing)
        assert not seen.page.is_visible("#lost")


@pytest.mark.timeout(200)
def test_a_run_shows_its_own_page_and_takes_it_along(visit: Open, study_file: StudyFile, tmp_path: Path) -> None:
    study = study_file(max_steps=100_000, ranks=(2,))
    with program("run", study, "--out", tmp_path / "study", "--serve") as run:
        address = address_in(run)
        seen = visit(address)
        seen.state("running")
        seen.points("> 5")
        run.send_signal(signal.SIGINT)
        seen.state("interrupted")
        assert run.wait(60) == 130
        seen.wait("!document.getElementById('lost').hidden")
    assert wait_for_end(address)


@pytest.mark.timeout(100)
def test_a_page_goes_with_a_run_that_is_killed(study_file: StudyFile, tmp_path: Path) -> None:
    with program("run", study_file(max_steps=100_000), "--out", tmp_path / "study", "--serve") as run:
        address = address_in(run)
        time.sleep(3)
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert wait_for_end(address)


def test_a_port_in_use_is_one_clear_error(growing: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with program("serve", growing, "--port", port) as server:
            said = server.communicate(timeout=60)[0]
    assert server.returncode == 2
    assert said == (
        f"lorascope: port {port} on 127.0.0.1 is in use\n  -> give another --port, or 0 for any that is free\n"
    )
