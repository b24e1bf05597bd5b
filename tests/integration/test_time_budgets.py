"""Studies with a time budget: what it buys, what is left out, and what is refused."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from lorascope.analysis import summarize
from lorascope.analysis.study_data import load_study
from lorascope.engine import loop
from lorascope.errors import InputError
from lorascope.records import BudgetRecord, ResolvedStudy, SoloRun
from lorascope.run import round as study_round
from lorascope.run import time_budget
from lorascope.run.context import RunContext
from lorascope.run.progress import RunProgress
from lorascope.run.round import RoundTrainer
from lorascope.run.solo_run import SoloRunner
from lorascope.run.time_budget import TimeBudget
from lorascope.search import allocation
from lorascope.search.allocation import Pace
from lorascope.spec.load import load_spec
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from support.studies import checkpoint_every_step, execute, read_study, study_of

Lorascope = Callable[..., tuple[int, str, str]]


@pytest.fixture
def spec(model_folders: Mapping[str, str], rows_file: str) -> StudySpec:
    fixed = study_of(model_folders["llama"], rows_file, max_steps=None, eval_steps=None, num_train_epochs=1.0)
    given = fixed.model_dump(exclude={"learning_rates", "until_decided", "seeds"})
    return load_spec(None, {**given, "time_budget": "1h"})


def pace(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let every token take so long, as far as the plan knows."""
    monkeypatch.setattr(time_budget, "measure_pace", lambda study, sizes: Pace(training=seconds, evaluation=seconds))


def budget_of(folder: Path) -> BudgetRecord:
    with StudyStore.open(folder / "study.db") as store:
        record = store.read_one(BudgetRecord)
    assert record is not None
    return record


def steps_of(folder: Path) -> int:
    with StudyStore.open(folder / "study.db") as store:
        resolved = store.read_one(ResolvedStudy)
    assert resolved is not None
    return resolved.total_steps


def test_a_large_budget_trains_the_epochs_on_three_seeds(spec: StudySpec, tmp_path: Path) -> None:
    execute(spec, tmp_path / "study")
    resolved = load_study(tmp_path / "study").resolved
    assert resolved is not None
    assert resolved.total_steps == math.ceil(resolved.train_examples / 4)
    assert {trial.seed for trial in summarize(tmp_path / "study").trials} >= {0, 1, 2}
    record = budget_of(tmp_path / "study")
    assert record.left_out == ()
    assert 0 < record.used_seconds < 3600
    assert record.training_pace > 0


def test_a_slow_machine_trains_fewer_steps(spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    execute(spec, tmp_path / "fast")
    pace(monkeypatch, 0.3)
    monkeypatch.setattr("lorascope.run.study._has_time", lambda run, search_round: True)
    execute(spec, tmp_path / "slow")
    assert 1 <= steps_of(tmp_path / "slow") < steps_of(tmp_path / "fast")


def test_time_is_kept_where_a_run_breaks_off(spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(run: RunContext) -> None:
        monkeypatch.setattr(TimeBudget, "used", property(lambda self: 1000.0))
        raise RuntimeError("broken off")

    monkeypatch.setattr("lorascope.run.study.prove_adapters", broken)
    with pytest.raises(RuntimeError, match="broken off"):
        execute(spec, tmp_path / "study")
    assert budget_of(tmp_path / "study").used_seconds == 1000.0


def test_a_continued_study_keeps_its_steps(spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    execute(spec, tmp_path / "study")
    before = read_study(tmp_path / "study")
    pace(monkeypatch, 1.0)
    again = execute(spec, tmp_path / "study")
    assert "this study is complete; nothing was trained" in again.notes
    assert read_study(tmp_path / "study") == before


def test_a_budget_given_to_a_started_study_keeps_the_steps_that_its_trials_have(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = spec.model_copy(update={"time_budget": None, "cost": "off"})
    execute(without, tmp_path / "study")
    steps = steps_of(tmp_path / "study")
    pace(monkeypatch, 0.3)
    assert execute(spec.model_copy(update={"cost": "quick"}), tmp_path / "study").steps == []
    assert steps_of(tmp_path / "study") == budget_of(tmp_path / "study").steps == steps > 1


def test_solo_runs_that_take_too_much_are_left_out_with_a_note(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allocation, "_SOLO_RUNS", 0.0)
    watcher = execute(spec.model_copy(update={"cost": "quick"}), tmp_path / "study")
    assert "solo_runs" in budget_of(tmp_path / "study").left_out
    assert load_study(tmp_path / "study").solo_runs == ()
    assert any("solo runs" in note for note in watcher.notes)


def test_rounds_that_do_not_fit_are_left_out(spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first round is trained; the other seeds are not, and the study ends with a last look."""
    monkeypatch.setattr("lorascope.run.study._has_time", lambda run, search_round: False)
    watcher = execute(spec, tmp_path / "study")
    data = load_study(tmp_path / "study")
    states = {name: outcome.state for name, outcome in data.outcomes.items()}
    assert all(state == "stopped" for name, state in states.items() if "-s" in name)
    assert "finished" in states.values()
    (look,) = data.looks
    assert look.next in ("budget", "steps")
    assert look.seeds == (0,)
    assert any("time budget ends" in note for note in watcher.notes)
    assert summarize(tmp_path / "study").verdict.seeds == 1
    assert summarize(tmp_path / "study").study.seeds == (0,)
    assert "this study is complete; nothing was trained" in execute(spec, tmp_path / "study").notes


def test_training_stops_where_the_time_ends(spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []

    def time_left(self: RoundTrainer) -> float:
        steps.append(1)
        return math.inf if len(steps) < 2 else 0.0

    monkeypatch.setattr(RoundTrainer, "_time_left", time_left)
    monkeypatch.setattr("lorascope.run.study._has_time", lambda run, search_round: False)
    execute(spec, tmp_path / "study")
    outcomes = load_study(tmp_path / "study").outcomes.values()
    assert {outcome.state for outcome in outcomes} == {"stopped"}
    found = {(outcome.message.code, outcome.steps) for outcome in outcomes if outcome.message is not None}
    assert ("trial.no_time", 2) in found
    assert found <= {("trial.no_time", 2), ("trial.behind", 1)}
    assert "this study is complete; nothing was trained" in execute(spec, tmp_path / "study").notes


def test_training_that_became_slow_begins_anew_with_fewer_steps(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of the longer attempts is nothing: the trials are those of a study with so many steps."""
    one_rate = spec.model_copy(update={"learning_rates": (5e-3,), "until_decided": False, "seeds": (0,)})
    with monkeypatch.context() as patch:
        patch.setattr(study_round, "_SLACK", 0.0)
        patch.setattr(study_round, "_PACED_SHARE", 0.0)
        watcher = execute(one_rate, tmp_path / "study")
    steps = steps_of(tmp_path / "study")
    assert steps == study_round._PACED_STEPS + 1
    assert any("begins anew" in note for note in watcher.notes)
    assert budget_of(tmp_path / "study").steps == steps
    execute(one_rate.model_copy(update={"max_steps": steps}), tmp_path / "short")
    assert read_study(tmp_path / "study") == read_study(tmp_path / "short")


def test_analyses_that_do_not_fit_are_left_out_and_made_with_more_time(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(RunContext, "allows", lambda self, activity, work: False)
        execute(spec, tmp_path / "study")
    assert budget_of(tmp_path / "study").left_out == ("spectra", "truncation", "proof")
    assert summarize(tmp_path / "study").truncation is None
    assert "this study is complete; nothing was trained" in execute(spec, tmp_path / "study").notes
    more = spec.model_copy(update={"time_budget": "2h"})
    assert execute(more, tmp_path / "study").steps == []
    assert budget_of(tmp_path / "study").left_out == ()
    assert summarize(tmp_path / "study").truncation is not None


def test_the_pace_before_a_run_goes_on_says_what_fits(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(RunContext, "allows", lambda self, activity, work: False)
        execute(spec, tmp_path / "study")
    pace(monkeypatch, 1e6)
    assert execute(spec.model_copy(update={"time_budget": "2h"}), tmp_path / "study").steps == []
    assert budget_of(tmp_path / "study").left_out == ("spectra", "truncation", "proof")


def test_truncations_need_the_time_of_singular_values_too(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunContext, "allows", lambda self, activity, work: True)
    known = RunProgress.seconds
    monkeypatch.setattr(
        RunProgress,
        "seconds",
        lambda self, activity, work: 3600.0 if activity == "spectra" else known(self, activity, work),
    )
    execute(spec, tmp_path / "study")
    assert budget_of(tmp_path / "study").left_out == ("truncation",)
    assert load_study(tmp_path / "study").truncations == ()


def test_a_larger_budget_makes_the_proof_alone(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(RunContext, "allows", lambda self, activity, work: activity != "proof")
        execute(spec, tmp_path / "study")
    assert budget_of(tmp_path / "study").left_out == ("proof",)
    assert load_study(tmp_path / "study").peft_checks == ()
    execute(spec.model_copy(update={"time_budget": "2h"}), tmp_path / "study")
    assert len(load_study(tmp_path / "study").peft_checks) == len(spec.ranks)


def test_a_study_whose_budget_is_dropped_makes_up_what_was_left_out_and_counts_on(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(RunContext, "allows", lambda self, activity, work: False)
        execute(spec, tmp_path / "study")
    with StudyStore.create(tmp_path / "study" / "study.db") as store:
        store.put(replace(budget_of(tmp_path / "study"), used_seconds=1000.0))
    without = spec.model_copy(update={"time_budget": None})
    assert execute(without, tmp_path / "study").steps == []
    record = budget_of(tmp_path / "study")
    assert record.left_out == ()
    assert 1000 < record.used_seconds < 1600
    assert summarize(tmp_path / "study").truncation is not None
    assert "this study is complete; nothing was trained" in execute(without, tmp_path / "study").notes


def test_a_larger_budget_takes_solo_runs_only_where_they_are_a_small_share_of_it(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    costly = spec.model_copy(update={"cost": "quick"})
    with monkeypatch.context() as patch:
        patch.setattr(allocation, "_SOLO_RUNS", 0.0)
        execute(costly, tmp_path / "study")
        watcher = execute(costly.model_copy(update={"time_budget": "2h"}), tmp_path / "study")
        assert any("solo runs" in note for note in watcher.notes)
    assert budget_of(tmp_path / "study").left_out == ("solo_runs",)
    execute(costly.model_copy(update={"time_budget": "3h"}), tmp_path / "study")
    assert budget_of(tmp_path / "study").left_out == ()
    assert {run.rank for run in load_study(tmp_path / "study").solo_runs} == set(spec.ranks)


def test_time_is_counted_while_solo_runs_are_taken(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed stores nothing more."""
    monkeypatch.setattr("lorascope.run.progress._TELL_SECONDS", 0.0)
    used, measure = [], SoloRunner.measure

    def measured(self: SoloRunner, n_steps: int, *, last: bool) -> SoloRun:
        used.append(budget_of(tmp_path / "study").used_seconds)
        return measure(self, n_steps, last=last)

    monkeypatch.setattr(SoloRunner, "measure", measured)
    execute(spec.model_copy(update={"cost": "quick"}), tmp_path / "study")
    assert len(used) == 2 * len(spec.ranks)
    assert used == sorted(set(used))


def test_a_study_that_time_ended_before_any_trial_goes_on_with_more_of_it(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(spec, tmp_path / "undisturbed")
    with monkeypatch.context() as patch:
        checkpoint_every_step(patch)
        left = iter([math.inf, math.inf, 0.0])
        patch.setattr(RoundTrainer, "_time_left", lambda self: next(left))
        execute(spec, tmp_path / "study")
    assert summarize(tmp_path / "study").answer.status == "no_answer"
    assert "this study is complete; nothing was trained" in execute(spec, tmp_path / "study").notes
    again = execute(spec.model_copy(update={"time_budget": "2h"}), tmp_path / "study")
    assert again.begun[0] == again.steps[0] - 1 >= 1
    assert read_study(tmp_path / "study") == read_study(tmp_path / "undisturbed")
    assert not (tmp_path / "study" / "checkpoints").exists()


@pytest.mark.parametrize("steps", [None, 50])
def test_a_budget_too_small_says_what_it_would_take(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int | None
) -> None:
    pace(monkeypatch, 10.0)
    monkeypatch.setattr(loop, "train_group", None)
    small = spec.model_copy(update={"time_budget": "1min", "max_steps": steps})
    with pytest.raises(InputError, match=r"time_budget 1min is too short: .* need about \d+ h"):
        execute(small, tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_a_busy_moment_does_not_refuse_a_budget(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paces = iter([10.0, 1e-5])

    def measured(_study: object, _sizes: object) -> Pace:
        seconds = next(paces)
        return Pace(training=seconds, evaluation=seconds)

    monkeypatch.setattr(time_budget, "measure_pace", measured)
    execute(spec.model_copy(update={"time_budget": "10min", "max_steps": 2}), tmp_path / "study")
    assert steps_of(tmp_path / "study") == 2
    assert budget_of(tmp_path / "study").training_pace == 1e-5


def test_a_budget_without_a_unit_is_refused(lorascope: Lorascope, rows_file: str, tmp_path: Path) -> None:
    code, _, error = lorascope("run", "--dataset", rows_file, "--time-budget", "20", "--out", tmp_path / "study")
    assert code == 2
    assert "time_budget" in error
    assert "20min" in error
