import io

import pytest
from rich.console import Console

from lorascope.cli.columns import Column, fit_columns
from lorascope.cli.live import LiveView, draw
from lorascope.cli.plain import PlainView
from lorascope.cli.run_state import RunState
from lorascope.message import Message
from lorascope.records import EvalRecord
from lorascope.run.trackers import SoloResult
from lorascope.spec.schema import StudySpec
from support.cli import Script
from support.messages import verbatim

COST = SoloResult(rank=8, step_seconds=2.0, peak_bytes=1_200_000_000)


def drawn(state: RunState, width: int, height: int = 40) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, height=height)
    console.print(draw(state, width, height, 1_300_000_000))
    return file.getvalue()


def running(script: Script, spec: StudySpec | None = None) -> RunState:
    script.spec = spec or script.spec
    state = RunState(script.clock)
    script.begin(state)
    state.phase("training")
    script.evaluate(state, 0, 2.0)
    script.step(state, 1)
    return state


def test_live_table_shows_every_rank_and_the_progress(script: Script) -> None:
    text = drawn(running(script), 120)
    for shown in ("rank", "1/20", "1.5000", "running", "200 tokens/s", "1.30 GB", "5 %", "step 1 of 20", "20 s left"):
        assert shown in text
    assert "best rate" not in text
    assert "seeds" not in text


def test_base_loss_is_no_rank_s(script: Script) -> None:
    state = running(script)
    rows = {line.split()[0]: line.split() for line in drawn(state, 120).splitlines() if line.strip()}
    assert rows["base"] == ["base", "2.0000"]
    assert rows["8"][-2:] == ["-", "running"]
    script.evaluate(state, 1, 1.75)
    rows = {line.split()[0]: line.split() for line in drawn(state, 120).splitlines() if line.strip()}
    assert rows["8"][-2:] == ["1.7500", "running"]


def test_rank_is_shown_at_its_best_rate_over_its_seeds(script: Script) -> None:
    state = running(script, StudySpec(ranks=(8, 128), learning_rates=(1e-4, 3e-4), seeds=(0, 1)))
    assert [(row.learning_rate, row.eval_loss) for row in state.rank_rows] == [(None, None), (None, None)]
    for trial in script.trials:
        loss = 1.0 + (trial.learning_rate == 1e-4) + 0.1 * trial.seed
        state.evaluation(evaluated(trial.trial_id, 4, loss))
    for row in state.rank_rows:
        assert (row.learning_rate, row.seeds) == (3e-4, 2)
        assert row.eval_loss == pytest.approx(1.05)
        assert row.states == "4 running"
    assert "0.0003" in drawn(state, 120)


def test_evaluations_are_counted(script: Script) -> None:
    state = running(script)
    assert state.activity == "training"
    for step in range(2, 5):
        script.step(state, step)
    first, second = script.trials
    state.evaluation(evaluated(first.trial_id, 4, 1.0))
    assert state.activity == "evaluating 2 of 2"
    state.evaluation(evaluated(second.trial_id, 4, 1.0))
    assert state.activity == "training"
    for step in range(5, 9):
        script.step(state, step)
    assert state.activity == "evaluating 1 of 2"


def evaluated(trial_id: str, step: int, loss: float) -> EvalRecord:
    return EvalRecord(trial_id=trial_id, step=step, example_nats=(10 * loss,), example_target_tokens=(10,), seconds=0.5)


@pytest.mark.parametrize("width", [30, 45, 60, 80, 120])
def test_live_table_lines_fit_the_width(script: Script, width: int) -> None:
    state = running(script, StudySpec(ranks=(8, 128), learning_rates=(1e-4, 3e-4), seeds=(0, 1)))
    script.evaluate(state, 1, 1.25)
    lines = drawn(state, width).splitlines()
    assert all(len(line) <= width for line in lines)
    if width >= 60:
        assert "…" not in "".join(lines)
    assert sum("1.2500" in line for line in lines) == 2


def test_live_table_counts_hidden_ranks(script: Script) -> None:
    text = drawn(running(script, StudySpec(ranks=tuple(range(1, 31)))), 80, height=12)
    assert "... and 25 more ranks" in text
    assert len(text.splitlines()) <= 12


def test_live_table_drops_columns_by_priority(script: Script) -> None:
    columns = [
        Column(heading="rank", cells=["8"]),
        Column(heading="never", cells=[""]),
        Column(heading="second", cells=["x"], priority=1),
        Column(heading="first", cells=["x"], priority=2),
    ]
    assert [column.heading for column in fit_columns(columns, 100)] == ["rank", "second", "first"]
    assert [column.heading for column in fit_columns(columns, 15)] == ["rank", "second"]
    assert [column.heading for column in fit_columns(columns, 1)] == ["rank"]


def test_live_view_redraws_and_prints_notes_above(script: Script) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80, height=30)
    with LiveView(console) as view:
        view.phase("loading the model")
        view.note("rows are padded")
        view.warning("most rows are dropped")
        script.begin(view)
        view.solo_cost(COST)
        script.step(view, 1)
        script.evaluate(view, 1, 1.75)
        script.end(view, "diverged", Message("trial.eval_not_finite", step=20))
    text = file.getvalue()
    assert "\x1b[1;31mWARNING  most rows are dropped" in text
    for shown in ("rows are padded", "rank 8 solo: 2.00 s per step, peak memory 1.20 GB", "1.7500", "diverged"):
        assert shown in text


def test_plain_view_prints_at_tenths_and_after_silence(script: Script) -> None:
    stream = io.StringIO()
    with PlainView(stream, script.clock) as view:
        view.phase("loading the model")
        view.note("rows are padded")
        view.warning("most rows are dropped")
        script.begin(view)
        view.solo_cost(COST)
        script.end(view, "running", steps=0)
        script.evaluate(view, 0, 2.0)
        for step in range(1, 21):
            script.step(view, step)
        script.evaluate(view, 20, 1.25)
        script.end(view)
    lines = stream.getvalue().splitlines()
    assert lines[:3] == ["loading the model", "note: rows are padded", "WARNING: most rows are dropped"]
    assert lines[3].startswith("2 trials of 20 steps: a/model on rows.json, 400 rows, 48 held out")
    assert lines[3].endswith("scale 4 at rank 8, 0.25 at rank 128")
    assert lines[4].startswith("rank 8 solo")
    assert lines[5] == "step=0/20 rank=base eval_loss=2.0000"
    assert lines[6] == (
        "step=2/20 rank=8 learning_rate=0.0003 seeds=1 train_loss=1.5000 eval_loss=- progress=0.10 seconds_left=18"
    )
    steps = [line.split()[0] for line in lines if " rank=128 " in line]
    assert steps == [f"step={step}/20" for step in [*range(2, 21, 2), 20]]
    assert " eval_loss=1.2500 " in lines[-3]
    assert lines[-2:] == ["r8 finished after 20 steps", "r128 finished after 20 steps"]


def test_plain_view_prints_slow_steps(script: Script) -> None:
    stream = io.StringIO()
    with PlainView(stream, script.clock) as view:
        script.begin(view)
        script.step(view, 1)
        script.clock.now += 15
        script.step(view, 2)
        script.clock.now += 15
        script.step(view, 3)
    steps = [line.split()[0] for line in stream.getvalue().splitlines() if "rank=8 " in line]
    assert steps == ["step=2/20", "step=3/20"]


def test_plain_view_prints_the_reason_of_a_failed_trial(script: Script) -> None:
    stream = io.StringIO()
    with PlainView(stream, script.clock) as view:
        script.begin(view)
        script.end(view, "failed", verbatim("Traceback (most recent call last):\n  File ...\nKeyError: 'q_proj'\n"))
    assert stream.getvalue().splitlines()[1] == "r8 failed after 20 steps: KeyError: 'q_proj'"


def test_live_table_appends_added_trials(script: Script) -> None:
    stream = io.StringIO()
    with PlainView(stream, script.clock) as view:
        script.begin(view)
        script.end(view)
        script.spec = script.spec.model_copy(update={"ranks": (16,)})
        script.begin(view)
    assert stream.getvalue().splitlines()[-1] == "1 more: r16"


def test_plain_view_prints_why_a_trial_stopped(script: Script) -> None:
    stream = io.StringIO()
    with PlainView(stream, script.clock) as view:
        script.begin(view)
        script.end(view, "stopped", Message("trial.behind", loss=1.2, step=3, lowest=1.0), steps=3)
    assert stream.getvalue().splitlines()[1].startswith("r8 stopped after 3 steps: held-out loss 1.2")
