"""The live page in a real browser, with real runs."""

import contextlib
import os
import pty
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

import long_studies
from lorascope.charts.downsample import smooth
from lorascope.errors import InputError
from lorascope.records import StepRecord, TrialRecord
from lorascope.store import StudyStore
from lorascope.store.folder import StudyFolder
from lorascope.store.lock import read_owner
from support.browser import WAIT_SECONDS, address_in, program

Open = Callable[..., Any]
StudyFile = Callable[..., Path]
HERE = {"127.0.0.1"}
TOTAL_STEPS = 80


def recorded(folder: Path) -> dict[str, list[StepRecord]]:
    """Steps in the store."""
    with StudyStore.open(folder / "study.db") as store:
        return {trial.trial_id: store.read(StepRecord, trial_id=trial.trial_id) for trial in store.read(TrialRecord)}


def last_steps(folder: Path) -> dict[str, float]:
    return {name: float(records[-1].step) for name, records in recorded(folder).items() if records}


def check_lines(lines: dict[str, list[list[float]]], folder: Path) -> None:
    """Every step is in exactly one point, in order; values, lowest and highest are those of its steps."""
    for name, records in recorded(folder).items():
        ends = [int(point[0]) for point in lines[name]]
        assert ends == sorted(set(ends))
        assert ends[-1] == records[-1].step
        groups = [records[begin:end] for begin, end in pairwise([0, *ends])]
        losses = [[step.nats / step.target_tokens for step in group] for group in groups]
        means = [sum(s.nats for s in group) / sum(s.target_tokens for s in group) for group in groups]
        for place, expected in enumerate((smooth(means), map(min, losses), map(max, losses)), 1):
            assert [point[place] for point in lines[name]] == pytest.approx(list(expected), rel=1e-5)


def serves(page: str) -> bool:
    """Whether an address accepts connections."""
    parts = urlsplit(page)
    try:
        socket.create_connection((parts.hostname, parts.port), timeout=2).close()
    except OSError:
        return False
    return True


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def wait_for_steps(run: subprocess.Popen[str], folder: Path, count: int) -> None:
    """Wait until a run has recorded so many steps, and stop it there for the time being."""

    def done() -> bool:
        assert run.poll() is None, run.communicate()[0]
        with contextlib.suppress(InputError):  # there is no store yet
            return min(map(len, recorded(folder).values()), default=0) >= count
        return False

    wait_until(done)
    run.send_signal(signal.SIGSTOP)


def wait_for_lock(run: subprocess.Popen[str], folder: Path) -> None:
    """Wait until a run has locked its study, and stop it there for the time being."""

    def locked() -> bool:
        assert run.poll() is None, run.communicate()[0]
        owner = read_owner(StudyFolder(folder).lock)
        return owner is not None and owner.pid == run.pid

    wait_until(locked)
    run.send_signal(signal.SIGSTOP)


def test_live_page_follows_a_run_through_kill_and_resume(visit: Open, study_file: StudyFile, tmp_path: Path) -> None:
    """The run is stopped now and then, so that the test does not depend on which process is faster."""
    study, folder = study_file(max_steps=200, eval_steps=50), tmp_path / "study"
    with program("run", study, "--out", folder) as run:
        wait_for_steps(run, folder, 20)
        with program("serve", folder, "--port", 0) as server:
            seen = visit(address_in(server))
            seen.state("running")
            seen.points(">= 40")
            before = seen.wait_for_lines("train", partial(last_steps, folder))
            run.send_signal(signal.SIGCONT)
            wait_for_steps(run, folder, int(before["r2"][-1][0]) + 5)
            check_lines(seen.wait_for_lines("train", partial(last_steps, folder)), folder)
            seen.points(f"> {sum(map(len, before.values()))}")
            seen.page.reload()
            check_lines(seen.wait_for_lines("train", partial(last_steps, folder)), folder)
            seen.points(f"> {sum(map(len, before.values()))}")

            run.send_signal(signal.SIGKILL)
            run.wait()
            seen.state("interrupted")
            assert "Stopped at" in seen.page.inner_text("[data-part=status]")
            command = seen.page.inner_text("[data-part=status] code")
            assert str(folder) in command

            with program("run", study, "--out", folder) as again:
                wait_for_lock(again, folder)
                seen.state("running")
                again.send_signal(signal.SIGCONT)
                said = again.communicate()[0]
                assert again.returncode == 0, said
            seen.state("finished")
            check_lines(seen.wait_for_lines("train", partial(last_steps, folder)), folder)
            assert [point[0] for point in seen.lines("eval")["r2"]] == [0, 50, 100, 150, 200]
            assert "2 trials are complete" in seen.page.inner_text("[data-part=status]")
            seen.wait("document.querySelector('[data-part=result] h1')")
            seen.page.get_by_role("link", name="Open report").click()
            seen.wait("document.querySelector('h1#answer')")
            seen.page.locator("#curves").scroll_into_view_if_needed()
            seen.wait("document.querySelector('[data-chart=eval_loss] .vega-embed svg')")
            seen.page.get_by_role("link", name="r2", exact=True).click()
            seen.page.get_by_role("link", name="adapter_config.json").wait_for()
            assert seen.asked == HERE
            assert seen.errors == []


def test_live_page_draws_new_points(visit: Open, growing: Path) -> None:
    with program("serve", growing, "--port", 0) as server:
        seen = visit(address_in(server))
        seen.points("=== 120")
        for step in (41, 42, 43):
            long_studies.append(growing, step, total_steps=TOTAL_STEPS)
            seen.points(f"=== {3 * step}")
            check_lines(seen.lines("train"), growing)


def test_live_page_reconnects_without_losing_or_repeating_points(visit: Open, growing: Path) -> None:
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


def test_page_of_a_stopped_run_shows_it_and_stops(visit: Open, study_file: StudyFile, tmp_path: Path) -> None:
    study = study_file(max_steps=100_000, ranks=(2,))
    with program("run", study, "--out", tmp_path / "study", "--serve") as run:
        address = address_in(run)
        seen = visit(address)
        seen.state("running")
        seen.points("> 5")
        run.send_signal(signal.SIGINT)
        seen.state("interrupted")
        assert run.wait() == 130
        seen.wait("!document.getElementById('lost').hidden")
    wait_until(lambda: not serves(address))


def test_page_outlives_its_run_until_enter(visit: Open, study_file: StudyFile, tmp_path: Path) -> None:
    study, (terminal, keyboard) = study_file(max_steps=6), pty.openpty()
    with program("run", study, "--out", tmp_path / "study", "--serve", stdin=keyboard) as run:
        address = address_in(run)
        seen = visit(address)
        seen.state("finished")
        seen.page.get_by_role("link", name="Open report").wait_for()
        assert run.poll() is None
        assert serves(address)
        os.write(terminal, b"\n")
        assert run.wait() == 0
    wait_until(lambda: not serves(address))
    for end in (terminal, keyboard):
        os.close(end)


def test_run_without_a_keyboard_says_how_to_see_its_page_again(study_file: StudyFile, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    with program("run", study_file(max_steps=6), "--out", folder, "--serve", stdin=subprocess.DEVNULL) as run:
        said = run.communicate()[0]
    assert run.returncode == 0, said
    assert f"To see the page again: lorascope serve {folder}" in said


def test_page_of_a_killed_run_stops(study_file: StudyFile, tmp_path: Path) -> None:
    with program("run", study_file(max_steps=100_000), "--out", tmp_path / "study", "--serve") as run:
        address = address_in(run)
        wait_until(lambda: bool(urlopen(address).read()))
        run.send_signal(signal.SIGKILL)
        run.wait()
    wait_until(lambda: not serves(address))


def test_port_in_use_is_one_error(growing: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with program("serve", growing, "--port", port) as server:
            said = server.communicate()[0]
    assert server.returncode == 2
    assert said == (
        f"lorascope: port {port} on 127.0.0.1 is in use\n  -> give another --port, or 0 for any that is free\n"
    )
