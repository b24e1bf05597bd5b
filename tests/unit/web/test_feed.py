"""What a page is told of a study that is written meanwhile."""

import math
import os
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lorascope.records import Environment, GpuSample, StepRecord, SystemSample, TrialOutcome
from lorascope.store import StudyStore
from lorascope.store import connection as connect
from lorascope.store.lock import Owner
from lorascope.web import feed as feed_module
from lorascope.web.feed import Feed
from lorascope.web.liveness import Pulse
from lorascope.web.state import QUIET_SECONDS
from support.messages import verbatim

MakeStudy = Callable[..., Path]
DONE = {"r8": 40, "r128": 40, "r256": 40}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "POLL_SECONDS", 0.0)


def everything(feed: Feed) -> dict[str, Any]:
    """All parts, once the summary is there."""
    found = feed.update("")
    if feed._summary_thread is not None:
        feed._summary_thread.join(60)
    found = feed.update("") or found
    assert found is not None
    return found[1]


def step_of(trial_id: str, step: int, loss: float) -> StepRecord:
    return StepRecord(
        trial_id=trial_id, step=step, nats=200 * loss, target_tokens=200, tokens=260, learning_rate=3e-4,
        grad_norm=0.5, seconds=0.3, warmup=False,
    )  # fmt: skip


def sample(seconds: float, gpu: int | None = None) -> SystemSample:
    return SystemSample(
        seconds=seconds,
        rss_bytes=2_000_000_000,
        cpu_percent=180.0,
        device_allocated_bytes=gpu,
        memory_traffic_bytes=None,
    )


def test_a_visitor_gets_the_whole_study_and_then_only_what_is_new(make_study: MakeStudy) -> None:
    folder = make_study(done=DONE)
    feed = Feed(folder, "en")
    first = everything(feed)
    assert first["anew"] is True
    assert {name: len(line["points"]) for name, line in first["lines"]["train"].items()} == DONE
    assert {name: len(line["points"]) for name, line in first["lines"]["eval"].items()} == dict.fromkeys(DONE, 3)
    assert "at step 40 of 80" in first["result"]
    seen = feed.update("")[0]
    assert feed.update(seen) is None

    with StudyStore.create(folder / "study.db") as store:
        store.put_all([step_of(name, 41, 1.5) for name in DONE])
    seen, update = feed.update(seen)
    assert "anew" not in update
    assert update["lines"] == {"train": {name: {"anew": False, "points": [(41, 41, 1.5, 1.5, 1.5)]} for name in DONE}}
    assert "charts" not in update
    assert feed.update(seen) is None


def test_trials_that_no_run_works_at_are_interrupted_and_what_is_unknown_is_a_dash(make_study: MakeStudy) -> None:
    folder = make_study(done={"r8": 40, "r128": 0, "r256": 0})
    lock(folder, pid=2**30)
    found = everything(Feed(folder, "en"))
    assert found["state"]["name"] == "interrupted"
    assert "interrupted</td>" in found["trials"]
    assert "in training" not in found["trials"]
    assert "<td>–</td>" in found["trials"]
    assert "None" not in found["trials"]
    assert "did not end" not in found["result"]


def test_who_was_away_gets_what_came_meanwhile_once(make_study: MakeStudy) -> None:
    folder = make_study(done=DONE)
    feed = Feed(folder, "en")
    everything(feed)
    away = feed.update("")[0]
    for step in range(41, 51):
        with StudyStore.create(folder / "study.db") as store:
            store.put(step_of("r8", step, 1.5))
        feed.update("")
    _, update = feed.update(away)
    assert [point[0] for point in update["lines"]["train"]["r8"]["points"]] == list(range(41, 51))


@pytest.mark.parametrize("strange", ["", "0", "no-1", "-", "aaaaaaaa-5", "{born}-999999", "{born}-x", "{born}-٣"])
def test_a_version_nobody_gave_out_starts_anew(make_study: MakeStudy, strange: str) -> None:
    feed = Feed(make_study(), "en")
    everything(feed)
    _, update = feed.update(strange.replace("{born}", feed._born))
    assert update["anew"] is True
    assert {"head", "status", "trials", "result", "charts", "lines_charts", "marks", "lines"} <= update.keys()


def test_a_run_that_continues_drops_what_its_checkpoint_does_not_know(make_study: MakeStudy) -> None:
    folder = make_study(done=DONE)
    feed = Feed(folder, "en")
    everything(feed)
    seen = feed.update("")[0]
    with StudyStore.create(folder / "study.db") as store:
        store.put(store.read(Environment)[0])
        store.truncate_after(DONE, 30)
        store.put_all([step_of("r8", step, 9.0) for step in range(31, 46)])
    _, update = feed.update(seen)
    line = update["lines"]["train"]["r8"]
    assert line["anew"]
    assert [point[1] for point in line["points"]] == list(range(1, 46))
    assert [point[2] for point in line["points"]][30:] == [9.0] * 15
    assert [point[1] for point in update["lines"]["train"]["r128"]["points"]] == list(range(1, 31))
    assert [point[1] for point in update["lines"]["eval"]["r8"]["points"]] == [0, 20]


def test_another_study_in_the_same_folder_starts_anew(make_study: MakeStudy) -> None:
    folder = make_study()
    feed = Feed(folder, "en")
    everything(feed)
    seen = feed.update("")[0]
    for file in folder.iterdir():
        file.unlink()
    feed.update(seen)
    make_study(floors={4: 1.0, 16: 1.2})
    everything(feed)
    _, update = feed.update(seen)
    assert update["anew"] is True
    assert set(update["lines"]["train"]) == {"r4", "r16"}


def test_steps_without_a_finite_loss_leave_a_gap(make_study: MakeStudy) -> None:
    folder = make_study(done=DONE)
    with StudyStore.create(folder / "study.db") as store:
        bad = [math.nan, math.inf, -math.inf]
        store.put_all([replace(step_of("r8", 41 + n, 1.0), nats=nats) for n, nats in enumerate(bad)])
        store.put_all([replace(step_of("r8", 44, 1.0), target_tokens=0), step_of("r8", 45, 1.25)])
        store.put(TrialOutcome(trial_id="r8", state="diverged", steps=44, message=verbatim("loss is nan <b>here</b>")))
    update = everything(Feed(folder, "en"))
    points = update["lines"]["train"]["r8"]["points"]
    assert [point[1] for point in points][-2:] == [40, 45]
    assert {mark["id"]: mark["ended"] for mark in update["marks"]} == {"r8": True, "r128": False, "r256": False}
    assert "loss is nan &lt;b&gt;here&lt;/b&gt;" in update["trials"]


def test_memory_now_and_over_time(make_study: MakeStudy) -> None:
    folder = make_study(done=DONE)
    with StudyStore.create(folder / "study.db") as store:
        store.put_all([sample(60.0), sample(120.0, gpu=500_000_000)])
    update = everything(Feed(folder, "en"))
    assert "2.00 GB" in update["status"]
    assert "500.0 MB" in update["status"]
    assert update["lines"]["memory"] == {
        "rss_bytes": {"anew": False, "points": [(1, 1.0, 2.0, 2.0, 2.0), (2, 2.0, 2.0, 2.0, 2.0)]},
        "device_allocated_bytes": {"anew": False, "points": [(2, 2.0, 0.5, 0.5, 0.5)]},
    }


def gpu_of(seconds: float, busy: int | None) -> GpuSample:
    return GpuSample(
        seconds=seconds, rank=None, uuid="GPU-1", name="A <GPU>", memory_used_bytes=2_000_000_000,
        memory_total_bytes=8_000_000_000, utilization_percent=busy, memory_utilization_percent=None, power_watts=None,
        sm_clock_mhz=None, memory_clock_mhz=None, temperature_celsius=None, throttle_reasons=None,
    )  # fmt: skip


def test_a_gpu_now(make_study: MakeStudy) -> None:
    folder = make_study(done=DONE)
    with StudyStore.create(folder / "study.db") as store:
        store.put_all([gpu_of(1.0, 10), gpu_of(2.0, 87)])
    status = everything(Feed(folder, "en"))["status"]
    assert "A &lt;GPU&gt; busy" in status
    assert "87%" in status
    assert "10%" not in status
    assert "2.00 GB of 8.00 GB" in status
    assert "memory access" not in status


def test_the_state_follows_the_run(make_study: MakeStudy) -> None:
    """Just written: running; silent for a while: interrupted; at its end: finished."""
    folder = make_study(done=DONE)
    feed = Feed(folder, "en")
    assert feed.update("")[1]["state"]["name"] == "running"
    feed._pulse._changed_at = time.monotonic() - QUIET_SECONDS
    assert feed.update("")[1]["state"]["name"] == "interrupted"
    with StudyStore.create(folder / "study.db") as store:
        store.put(step_of("r8", 41, 1.5))
    assert feed.update("")[1]["state"]["name"] == "running"
    with StudyStore.create(folder / "study.db") as store:
        for name in DONE:
            store.put(TrialOutcome(trial_id=name, state="finished", steps=80, message=None))
    feed.update("")
    feed._pulse._changed_at = time.monotonic() - QUIET_SECONDS
    assert feed.update("")[1]["state"]["name"] == "finished"


def test_an_old_store_is_not_taken_for_one_that_is_written(make_study: MakeStudy) -> None:
    folder = make_study(done=DONE)
    for file in folder.glob("study.*"):
        os.utime(file, (time.time() - 3600,) * 2)
    assert Feed(folder, "en").update("")[1]["state"]["name"] == "interrupted"


def lock(folder: Path, **changes: object) -> None:
    """Write the lock as a run does that this process carries out."""
    (folder / "study.lock").write_bytes(replace(Owner.this_process(), **changes).to_bytes())


def test_the_lock_of_a_run_says_more_than_the_age_of_its_records(make_study: MakeStudy) -> None:
    folder = make_study(done=DONE)
    feed = Feed(folder, "en")
    for owner, state in (({}, "running"), ({"started": 5.0}, "interrupted"), ({"pid": 2**30}, "interrupted")):
        lock(folder, **owner)
        assert feed.update("")[1]["state"]["name"] == state
    lock(folder)
    feed._pulse._changed_at = -math.inf
    assert feed.update("")[1]["state"]["name"] == "running"
    lock(folder, host="another machine")
    assert feed.update("")[1]["state"]["name"] == "interrupted"
    feed._pulse._changed_at = time.monotonic()
    assert feed.update("")[1]["state"]["name"] == "running"
    (folder / "study.lock").unlink()
    assert feed.update("")[1]["state"]["name"] == "interrupted"


def test_a_study_whose_run_was_killed_at_its_very_end_is_not_finished(make_study: MakeStudy) -> None:
    folder = make_study()
    lock(folder, pid=2**30)
    assert Feed(folder, "en").update("")[1]["state"]["name"] == "interrupted"
    (folder / "study.lock").unlink()
    for file in folder.glob("study.*"):
        os.utime(file, (time.time() - 3600,) * 2)
    assert Feed(folder, "en").update("")[1]["state"]["name"] == "finished"


def test_a_lock_that_says_nothing_is_no_lock(make_study: MakeStudy) -> None:
    folder = make_study(done=DONE)
    for text in ("", " 5", " []", " {}", ' {"host": 1}', " \udcff"):
        (folder / "study.lock").write_bytes(text.encode("utf-8", "surrogateescape"))
        assert Feed(folder, "en").update("")[1]["state"]["name"] == "running"


def test_a_run_that_shows_its_own_page_says_itself_whether_it_is_at_work(make_study: MakeStudy, tmp_path: Path) -> None:
    at_work = [True]
    feed = Feed(tmp_path / "study", "en", in_run=lambda: at_work[0])
    assert feed.update("")[1]["state"]["name"] == "preparing"
    make_study(done=dict.fromkeys(DONE, 80))
    assert feed.update("")[1]["state"]["name"] == "running"
    at_work[0] = False
    assert feed.update("")[1]["state"]["name"] == "finished"


def test_a_clock_that_was_set_back_does_not_kill_a_run(make_study: MakeStudy) -> None:
    folder = make_study()
    for file in folder.glob("study.*"):
        os.utime(file, (time.time() + 7200,) * 2)
    pulse = Pulse(folder)
    assert pulse.beat()
    assert pulse.alive()


def test_the_page_says_in_the_visitors_language_what_it_can(make_study: MakeStudy) -> None:
    """Words are looked up when a page is made, not when the program starts."""
    folder = make_study(model="<script>alert(1)</script>")
    update = everything(Feed(folder, "ko"))
    assert "&lt;script&gt;" in update["head"]
    assert "<script" not in update["head"]


def test_a_store_of_another_version_is_said_on_the_page(make_study: MakeStudy) -> None:
    folder = make_study()
    with sqlite3.connect(folder / "study.db") as connection:
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    update = Feed(folder, "en").update("")[1]
    assert "another version of lorascope" in update["problem"]
    assert "read it with lorascope 0.1.0" in update["problem"]


def test_a_store_that_is_just_being_made_is_no_problem(make_study: MakeStudy, tmp_path: Path) -> None:
    """SQLite's file is there a moment before its tables."""
    spec = (make_study() / "study.yaml").read_bytes()
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "study.yaml").write_bytes(spec)
    (tmp_path / "new" / "study.db").touch()
    feed = Feed(tmp_path / "new", "en")
    update = feed.update("")[1]
    assert (update["problem"], update["state"]["name"]) == ("", "preparing")
    (tmp_path / "new" / "study.db").write_text("no store at all", encoding="utf-8")
    assert "is not a study store" in feed.update("")[1]["problem"]


def test_a_damaged_store_is_said_and_its_repair_seen(make_study: MakeStudy) -> None:
    folder = make_study()
    whole = (folder / "study.db").read_bytes()
    (folder / "study.db").write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    feed = Feed(folder, "en")
    assert "study.db" in feed.update("")[1]["problem"]
    (folder / "study.db").write_bytes(whole)
    update = everything(feed)
    assert update["problem"] == ""
    assert len(update["lines"]["train"]) == 3


def test_looking_neither_writes_nor_stays_in_the_way(make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer is never told that the store is busy, and between looks no connection is open."""
    folder = make_study(done=DONE)
    monkeypatch.setattr(connect, "WAIT_SECONDS", 0.0)
    feed = Feed(folder, "en")
    with StudyStore.create(folder / "study.db") as store:
        for step in range(41, 80):
            store.put(step_of("r8", step, 1.5))
            feed.update("")
        if feed._summary_thread is not None:
            feed._summary_thread.join(60)
    # The last writer could put the store back into one file: nobody else held it open.
    assert sorted(file.name for file in folder.iterdir()) == ["study.db", "study.yaml"]
