"""The monitor of a study that changes, and the parts of its page."""

import math
import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import long_studies
from lorascope import analysis
from lorascope.analysis import StudyData, StudySummary, summarize_data
from lorascope.charts.downsample import smooth
from lorascope.records import Environment, GpuSample, StepRecord, SystemSample, TrialOutcome
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from lorascope.store import connection as connect
from lorascope.store.lock import Owner
from lorascope.web import liveness
from lorascope.web import monitor as monitor_module
from lorascope.web.app import changed_parts, encode
from lorascope.web.liveness import Liveness
from lorascope.web.monitor import StudyMonitor
from lorascope.web.parts import render_study
from lorascope.web.series import MAX_POINTS
from support.messages import verbatim

MakeStudy = Callable[..., Path]
DONE = {"r8": 40, "r128": 40, "r256": 40}


@pytest.fixture(autouse=True)
def no_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poll at every call, and take half an hour on a busy machine for no silence of the run."""
    monkeypatch.setattr(monitor_module, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(liveness, "QUIET_SECONDS", 1800.0)


def parts_of(monitor: StudyMonitor, code: str = "en") -> dict[str, Any]:
    return render_study(monitor.poll(), code)


def state_of(monitor: StudyMonitor) -> str:
    return monitor.poll().state


def all_parts(monitor: StudyMonitor, code: str = "en") -> dict[str, Any]:
    """All parts, with the summary."""
    monitor.poll()
    if monitor._summary_thread is not None:
        monitor._summary_thread.join()
    return parts_of(monitor, code)


def points(parts: Mapping[str, Any], chart: str) -> dict[str, Any]:
    """Points of a chart's lines."""
    start = f"lines/{chart}/"
    return {name.removeprefix(start): part["points"] for name, part in parts.items() if name.startswith(start)}


def step_of(trial_id: str, step: int, loss: float) -> StepRecord:
    return StepRecord(
        trial_id=trial_id, step=step, nats=200 * loss, target_tokens=200, tokens=260, learning_rate=3e-4,
        grad_norm=0.5, seconds=0.3, warmup=False, group=0,
    )  # fmt: skip


def sample(seconds: float, gpu: int | None = None) -> SystemSample:
    return SystemSample(
        seconds=seconds,
        rss_bytes=2_000_000_000,
        cpu_percent=180.0,
        device_allocated_bytes=gpu,
        memory_traffic_bytes=None,
    )


def test_monitor_sends_the_study_and_then_changed_parts(make_study: MakeStudy) -> None:
    folder = make_study(done=DONE)
    monitor = StudyMonitor(folder)
    first = all_parts(monitor)
    assert {name: len(line) for name, line in points(first, "train").items()} == DONE
    assert {name: len(line) for name, line in points(first, "eval").items()} == dict.fromkeys(DONE, 3)
    assert "Too early to call" in first["result"]
    assert 'class="card"' not in first["result"]
    study = monitor.poll()
    assert monitor.poll() is study
    assert changed_parts(first, parts_of(monitor)) == {}

    with StudyStore.create(folder / "study.db") as store:
        store.put_all([step_of(name, 41, 1.5) for name in DONE])
    update = changed_parts(first, parts_of(monitor))
    assert set(update) == {"status", "trials", *(f"lines/train/{name}" for name in DONE)}
    for line in points(update, "train").values():
        assert [x for x, *_ in line] == list(range(1, 42))
        assert line[-1][2:] == (1.5, 1.5)


def test_monitor_smooths_lines_as_in_the_report(make_study: MakeStudy) -> None:
    folder = make_study(done=DONE)
    line = points(parts_of(StudyMonitor(folder)), "train")["r8"]
    with StudyStore.open(folder / "study.db") as store:
        losses = [record.nats / record.target_tokens for record in store.read(StepRecord, trial_id="r8")]
    assert [value for _, value, *_ in line] == pytest.approx(list(smooth(losses)), rel=1e-5)
    assert [low for _, _, low, _ in line] == pytest.approx(losses, rel=1e-5)


def test_monitor_summarizes_once_for_all_languages(make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads of other tests may still be summarizing, so the study is counted by its model."""
    models: list[str] = []

    def summarize(data: StudyData) -> StudySummary:
        models.append(data.resolved.model)
        return summarize_data(data)

    monkeypatch.setattr(monitor_module, "summarize_data", summarize)
    monitor = StudyMonitor(make_study(done=DONE, model="counted"))
    english, korean = all_parts(monitor, "en"), all_parts(monitor, "ko")
    assert english["result"] != korean["result"]
    assert english["state"]["name"] == korean["state"]["name"]
    assert points(english, "train") == points(korean, "train")
    assert models.count("counted") == 1


def test_monitor_summarizes_again_where_the_store_was_locked(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = [sqlite3.OperationalError("database is locked")]
    load = analysis.load_study

    def load_study(folder: Path) -> StudyData:
        if locked:
            raise locked.pop()
        return load(folder)

    monkeypatch.setattr(monitor_module, "load_study", load_study)
    monkeypatch.setattr(monitor_module, "RETRY_SECONDS", 0.0)
    monitor = StudyMonitor(make_study(done=DONE))
    assert "result" not in all_parts(monitor)
    assert "result" in all_parts(monitor)


def test_monitor_update_of_a_long_study_is_below_100_kb(tmp_path: Path) -> None:
    """Nine trials of 10,000 steps and more, four hours of samples: the first message and one of a new step."""
    done = 12_798  # of the step numbers near 10,000 the one that leaves the most buckets
    spec = StudySpec(ranks=(8, 128, 256), learning_rates=(1e-4, 3e-4, 1e-3))
    long_studies.write(tmp_path / "study", spec, total_steps=20_000, done=done)
    with StudyStore.create(tmp_path / "study" / "study.db") as store:
        store.put_all([sample(float(second)) for second in range(61, 4 * 3600)])
    monitor = StudyMonitor(tmp_path / "study")
    first = all_parts(monitor)
    assert all(len(line) == MAX_POINTS for line in points(first, "train").values())
    long_studies.append(tmp_path / "study", done + 1, total_steps=20_000)
    update = changed_parts(first, parts_of(monitor))
    assert len([name for name in update if name.startswith("lines/")]) == 9
    assert len(encode(update).encode()) < 100_000
    assert len(encode(first).encode()) < 100_000


def test_monitor_of_an_interrupted_study(make_study: MakeStudy) -> None:
    folder = make_study(done={"r8": 40, "r128": 0, "r256": 0})
    lock(folder, pid=2**30)
    found = all_parts(StudyMonitor(folder))
    assert found["state"]["name"] == "interrupted"
    assert "interrupted</td>" in found["trials"]
    assert "in training" not in found["trials"]
    assert 'data-label="training loss">–</td>' in found["trials"]
    assert "None" not in found["trials"]
    assert "did not end" not in found["result"]


def test_monitor_update_after_an_absence_has_everything_once(make_study: MakeStudy) -> None:
    folder = make_study(done=DONE)
    monitor = StudyMonitor(folder)
    before = all_parts(monitor)
    for step in range(41, 51):
        with StudyStore.create(folder / "study.db") as store:
            store.put_all([step_of("r8", step, 1.5)])
        monitor.poll()
    update = changed_parts(before, parts_of(monitor))
    assert [x for x, *_ in points(update, "train")["r8"]] == list(range(1, 51))


def test_monitor_drops_steps_after_the_checkpoint_of_a_resumed_run(make_study: MakeStudy) -> None:
    folder = make_study(done=DONE)
    monitor = StudyMonitor(folder)
    all_parts(monitor)
    with StudyStore.create(folder / "study.db") as store:
        store.put(store.read(Environment)[0])
        store.truncate_after(DONE, 30)
        store.put_all([step_of("r8", step, 9.0) for step in range(31, 46)])
    found = parts_of(monitor)
    line = points(found, "train")["r8"]
    assert [x for x, *_ in line] == list(range(1, 46))
    assert [low for _, _, low, _ in line][30:] == [9.0] * 15
    assert [x for x, *_ in points(found, "train")["r128"]] == list(range(1, 31))
    assert [x for x, *_ in points(found, "eval")["r8"]] == [0, 20]


def test_monitor_follows_a_replaced_study(make_study: MakeStudy) -> None:
    folder = make_study()
    monitor = StudyMonitor(folder)
    before = all_parts(monitor)
    for file in folder.iterdir():
        file.unlink()
    monitor.poll()
    make_study(floors={4: 1.0, 16: 1.2})
    assert not {"result", "summary_charts"} & parts_of(monitor).keys()
    after = all_parts(monitor)
    assert set(points(after, "train")) == {"r4", "r16"}
    gone = {name for name, part in changed_parts(before, after).items() if part is None}
    assert gone >= {f"lines/{chart}/{name}" for chart in ("train", "eval") for name in DONE}


def test_monitor_leaves_a_gap_at_nonfinite_losses(make_study: MakeStudy) -> None:
    folder = make_study(done=DONE)
    with StudyStore.create(folder / "study.db") as store:
        bad = [math.nan, math.inf, -math.inf]
        store.put_all([replace(step_of("r8", 41 + n, 1.0), nats=nats) for n, nats in enumerate(bad)])
        store.put_all([replace(step_of("r8", 44, 1.0), target_tokens=0), step_of("r8", 45, 1.25)])
        store.put(TrialOutcome(trial_id="r8", state="diverged", steps=44, message=verbatim("loss is nan <b>here</b>")))
    found = all_parts(StudyMonitor(folder))
    assert [x for x, *_ in points(found, "train")["r8"]][-2:] == [40, 45]
    assert {name: found[f"lines/train/{name}"]["ended"] for name in DONE} == {"r8": True, "r128": False, "r256": False}
    assert "loss is nan &lt;b&gt;here&lt;/b&gt;" in found["trials"]


def test_monitor_shows_memory_over_time(make_study: MakeStudy) -> None:
    folder = make_study(done=DONE)
    with StudyStore.create(folder / "study.db") as store:
        store.put_all([sample(60.0), sample(120.0, gpu=500_000_000)])
    found = all_parts(StudyMonitor(folder))
    assert "2.00 GB" in found["status"]
    assert "500.0 MB" in found["status"]
    assert points(found, "memory") == {
        "rss_bytes": [(1.0, 2.0, 2.0, 2.0), (2.0, 2.0, 2.0, 2.0)],
        "device_allocated_bytes": [(2.0, 0.5, 0.5, 0.5)],
    }


def gpu_of(seconds: float, busy: int | None) -> GpuSample:
    return GpuSample(
        seconds=seconds, rank=None, uuid="GPU-1", name="A <GPU>", memory_used_bytes=2_000_000_000,
        memory_total_bytes=8_000_000_000, utilization_percent=busy, memory_utilization_percent=None, power_watts=None,
        sm_clock_mhz=None, memory_clock_mhz=None, temperature_celsius=None, throttle_reasons=None,
    )  # fmt: skip


def test_monitor_shows_the_gpu(make_study: MakeStudy) -> None:
    folder = make_study(done=DONE)
    with StudyStore.create(folder / "study.db") as store:
        store.put_all([gpu_of(1.0, 10), gpu_of(2.0, 87)])
    status = all_parts(StudyMonitor(folder))["status"]
    assert "A &lt;GPU&gt; busy" in status
    assert "87%" in status
    assert "10%" not in status
    assert "2.00 GB of 8.00 GB" in status
    assert "memory access" not in status


def test_monitor_state_follows_the_run(make_study: MakeStudy) -> None:
    """Just written: running; silent for a while: interrupted; at its end: finished."""
    folder = make_study(done=DONE)
    monitor = StudyMonitor(folder)
    assert state_of(monitor) == "running"
    monitor._liveness._changed_at = -math.inf
    assert state_of(monitor) == "interrupted"
    with StudyStore.create(folder / "study.db") as store:
        store.put_all([step_of("r8", 41, 1.5)])
    assert state_of(monitor) == "running"
    with StudyStore.create(folder / "study.db") as store:
        for name in DONE:
            store.put(TrialOutcome(trial_id=name, state="finished", steps=80, message=None))
    monitor.poll()
    monitor._liveness._changed_at = -math.inf
    assert state_of(monitor) == "finished"


def test_monitor_state_of_an_old_store_is_interrupted(make_study: MakeStudy) -> None:
    folder = make_study(done=DONE)
    for file in folder.glob("study.*"):
        os.utime(file, (time.time() - 3600,) * 2)
    assert state_of(StudyMonitor(folder)) == "interrupted"


def lock(folder: Path, **changes: Any) -> None:
    """Write the lock as a run does that this process carries out."""
    (folder / "study.lock").write_bytes(replace(Owner.this_process(), **changes).to_bytes())


def test_monitor_state_prefers_the_lock_to_the_age_of_records(make_study: MakeStudy) -> None:
    folder = make_study(done=DONE)
    monitor = StudyMonitor(folder)
    for owner, state in (({}, "running"), ({"started": 5.0}, "interrupted"), ({"pid": 2**30}, "interrupted")):
        lock(folder, **owner)
        assert state_of(monitor) == state
    lock(folder)
    monitor._liveness._changed_at = -math.inf
    assert state_of(monitor) == "running"
    lock(folder, host="another machine")
    assert state_of(monitor) == "interrupted"
    monitor._liveness._changed_at = math.inf
    assert state_of(monitor) == "running"
    (folder / "study.lock").unlink()
    assert state_of(monitor) == "interrupted"


def test_monitor_state_of_a_run_killed_at_its_end(make_study: MakeStudy) -> None:
    folder = make_study()
    lock(folder, pid=2**30)
    assert state_of(StudyMonitor(folder)) == "interrupted"
    (folder / "study.lock").unlink()
    for file in folder.glob("study.*"):
        os.utime(file, (time.time() - 3600,) * 2)
    assert state_of(StudyMonitor(folder)) == "finished"


def test_monitor_ignores_a_lock_without_an_owner(make_study: MakeStudy) -> None:
    folder = make_study(done=DONE)
    for text in ("", " 5", " []", " {}", ' {"host": 1}', " \udcff"):
        (folder / "study.lock").write_bytes(text.encode("utf-8", "surrogateescape"))
        assert state_of(StudyMonitor(folder)) == "running"


def test_monitor_of_a_run_with_its_own_page(make_study: MakeStudy, tmp_path: Path) -> None:
    at_work = [True]
    monitor = StudyMonitor(tmp_path / "study", run_alive=lambda: at_work[0])
    assert state_of(monitor) == "preparing"
    make_study(done=dict.fromkeys(DONE, 80))
    assert state_of(monitor) == "running"
    at_work[0] = False
    assert state_of(monitor) == "finished"


def test_monitor_state_survives_a_clock_set_back(make_study: MakeStudy) -> None:
    folder = make_study()
    for file in folder.glob("study.*"):
        os.utime(file, (time.time() + 7200,) * 2)
    liveness = Liveness(folder)
    assert liveness.check_files()
    assert liveness.is_running()


def test_monitor_speaks_the_language_of_the_visitor(make_study: MakeStudy) -> None:
    """Words are looked up when a page is made, not when the program starts."""
    folder = make_study(model="<script>alert(1)")
    update = all_parts(StudyMonitor(folder), "ko")
    assert "&lt;script&gt;" in update["head"]
    assert "<script" not in update["head"]


def test_monitor_reports_a_store_of_another_version(make_study: MakeStudy) -> None:
    folder = make_study()
    with sqlite3.connect(folder / "study.db") as connection:
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    update = parts_of(StudyMonitor(folder))
    assert "another version of lorascope" in update["problem"]
    assert "read it with lorascope 0.1.0" in update["problem"]


def test_monitor_waits_for_a_store_being_created(make_study: MakeStudy, tmp_path: Path) -> None:
    """SQLite's file is there a moment before its tables."""
    spec = (make_study() / "study.yaml").read_bytes()
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "study.yaml").write_bytes(spec)
    (tmp_path / "new" / "study.db").touch()
    monitor = StudyMonitor(tmp_path / "new")
    update = parts_of(monitor)
    assert (update["problem"], update["state"]["name"]) == ("", "preparing")
    (tmp_path / "new" / "study.db").write_text("no store at all", encoding="utf-8")
    assert "is not a study store" in parts_of(monitor)["problem"]


def test_monitor_reports_a_damaged_store_and_its_repair(make_study: MakeStudy) -> None:
    folder = make_study()
    whole = (folder / "study.db").read_bytes()
    (folder / "study.db").write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    monitor = StudyMonitor(folder)
    assert "study.db" in parts_of(monitor)["problem"]
    (folder / "study.db").write_bytes(whole)
    update = all_parts(monitor)
    assert update["problem"] == ""
    assert len(points(update, "train")) == 3


def test_monitor_polling_does_not_block_the_writer(make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer is never told that the store is busy, and between polls no connection is open."""
    folder = make_study(done=DONE)
    monkeypatch.setattr(connect, "WAIT_SECONDS", 0.0)
    monitor = StudyMonitor(folder)
    with StudyStore.create(folder / "study.db") as store:
        for step in range(41, 80):
            store.put_all([step_of("r8", step, 1.5)])
            monitor.poll()
        if monitor._summary_thread is not None:
            monitor._summary_thread.join()
    # The last writer could merge the log into the store: no reader held it open.
    assert sorted(file.name for file in folder.iterdir()) == ["study.db", "study.yaml"]
