"""Learning rates that leave early and rates that are added, from the first step to the report."""

import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lorascope.analysis import summarize
from lorascope.engine import loop
from lorascope.engine.step import train_step as train_one
from lorascope.errors import Interrupted
from lorascope.records import EvalRecord, ResolvedStudy, StepRecord, TrialRecord
from lorascope.spec.load import dump_spec
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from support.studies import Left, checkpoint_every_step, execute, read_study, study_of

Lorascope = Callable[..., tuple[int, str, str]]
RATES = (1e-4, 1e-3, 1e-2, 1e-1)
"""Of these, the tiny model's best is the last: one more is added above it."""
STEPS = 8


@pytest.fixture(scope="session")
def spec(model_folders: Mapping[str, str], rows_file: str) -> StudySpec:
    """Two ranks, four rates and two seeds; rungs after steps 1 and 3."""
    return study_of(
        model_folders["llama"], rows_file, learning_rates=RATES, seeds=(0, 1), max_steps=STEPS, eval_steps=4,
        max_grid_extensions=1,
    )  # fmt: skip


@pytest.fixture(scope="session")
def undisturbed(spec: StudySpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "study"
    execute(spec, folder)
    return folder


@pytest.fixture(scope="session")
def left(undisturbed: Path) -> Left:
    return read_study(undisturbed)


def test_early_exit_stops_rates_at_a_rung(left: Left) -> None:
    stopped = {name: outcome for name, outcome in left.outcomes.items() if outcome.state == "stopped"}
    assert {outcome.steps for outcome in stopped.values()} == {1, 3}
    assert all(outcome.message and outcome.message.code == "trial.behind" for outcome in stopped.values())
    for name, outcome in stopped.items():
        assert [record.step for record in left.steps[name]] == list(range(1, outcome.steps + 1))
        assert left.evaluations[name][-1].step == outcome.steps
        assert not any(path.startswith(f"adapters/{name}/") for path in left.adapters)


def test_early_exit_extends_the_grid_and_adds_the_other_seed(left: Left) -> None:
    grid = [f"r{rank}-lr{rate!r}" for rank in (2, 4) for rate in RATES]
    names = list(left.outcomes)
    assert set(grid) < set(names)
    assert {"r2-lr1.0", "r4-lr1.0"} <= set(names)
    for rank in (2, 4):
        assert left.outcomes[f"r{rank}-lr0.1"].state == "finished"
        assert left.outcomes[f"r{rank}-lr0.1-s1"].state == "finished"
        assert not any(name.startswith(f"r{rank}-lr0.0001") and name.endswith("s1") for name in names)


def test_early_exit_keeps_the_numbers_of_the_whole_grid(spec: StudySpec, left: Left, tmp_path: Path) -> None:
    """A trial's loss depends neither on trials that stop nor on its group."""
    whole = spec.model_copy(update={"early_exit": False, "max_grid_extensions": 0})
    execute(whole, tmp_path / "whole")
    exhaustive = read_study(tmp_path / "whole")
    names = exhaustive.steps.keys() & left.steps.keys()
    assert {f"r{rank}-lr0.1{seed}" for rank in (2, 4) for seed in ("", "-s1")} <= names
    for name in names:
        nats = [step.nats for step in left.steps[name]]
        # float32: micro-batches hold rows of other trials, and sums are taken in another order
        assert nats == pytest.approx([step.nats for step in exhaustive.steps[name][: len(nats)]], rel=1e-4)
        base, of_whole = (each.evaluations[name][0] for each in (left, exhaustive))
        assert base.example_nats == of_whole.example_nats


def test_early_exit_summary_counts_saved_steps(undisturbed: Path) -> None:
    summary = summarize(undisturbed)
    assert summary.study.complete
    kinds = {caution.kind for caution in summary.cautions}
    assert not kinds & {"ended_early", "unfinished", "one_learning_rate"}
    for part in summary.ranks:
        assert part.learning_rates == (*RATES, 1.0)
        assert part.added_learning_rates == (1.0,)
        assert part.seeds == 2
        assert part.excess_loss is not None
    budget = summary.study.budget
    assert budget is not None
    assert budget.stopped_trials == sum(trial.outcome == "stopped" for trial in summary.trials)
    with StudyStore.open(undisturbed / "study.db") as store:
        names = [trial.trial_id for trial in store.read(TrialRecord)]
        resolved = store.read_one(ResolvedStudy)
        assert resolved is not None
        assert resolved.eval_tokens is not None
        trained = sum(step.tokens for name in names for step in store.read(StepRecord, trial_id=name))
        # The base was evaluated once; its record stands with every trial
        evaluated = 1 + sum(record.step > 0 for name in names for record in store.read(EvalRecord, trial_id=name))
    assert budget.tokens == trained + evaluated * resolved.eval_tokens
    assert budget.tokens < budget.exhaustive_tokens
    assert budget.share == pytest.approx(budget.tokens / budget.exhaustive_tokens, rel=1e-6)


def stop_after(count: int) -> Callable[[int], None]:
    """Ask to stop after so many steps of this process."""
    seen = []

    def at_step(step: int) -> None:
        seen.append(step)
        if len(seen) == count:
            os.kill(os.getpid(), signal.SIGINT)

    return at_step


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_early_exit_resumes_from_repeated_stops(spec: StudySpec, left: Left, tmp_path: Path, steps: int) -> None:
    """Also right at a rung (after steps 1 and 3), and in every group."""
    interruptions = 0
    while True:
        try:
            execute(spec, tmp_path / "study", stop_after(steps))
            break
        except Interrupted:
            interruptions += 1
    assert interruptions >= 3
    assert read_study(tmp_path / "study") == left
    assert not (tmp_path / "study" / "checkpoints").exists()


@pytest.mark.parametrize("checkpoints", ["every step", "none"])
def test_early_exit_resumes_after_a_kill_behind_a_rung(
    spec: StudySpec, left: Left, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: str
) -> None:
    class Killed(BaseException):
        pass

    def at_step(step: int) -> None:
        if step == 5:
            raise Killed

    if checkpoints == "every step":
        checkpoint_every_step(monkeypatch)
    with pytest.raises(Killed):
        execute(spec, tmp_path / "study", at_step)
    states = {outcome.state for outcome in read_study(tmp_path / "study").outcomes.values()}
    assert states == {"running", "stopped"}
    execute(spec, tmp_path / "study")
    assert read_study(tmp_path / "study") == left


def test_early_exit_study_is_not_trained_again(spec: StudySpec, undisturbed: Path, left: Left) -> None:
    watcher = execute(spec, undisturbed)
    assert watcher.steps == []
    assert "nothing was trained" in watcher.notes[-1]
    assert read_study(undisturbed) == left


def test_early_exit_goes_on_after_a_rate_diverges(
    lorascope: Lorascope, model_folders: Mapping[str, str], rows_file: str, tmp_path: Path
) -> None:
    """On the command line, with the report: divergence is exit code 1, as for any trial, and is not widened into."""
    spec = study_of(model_folders["llama"], rows_file, ranks=(2,), max_steps=STEPS)
    (tmp_path / "my.yaml").write_text(dump_spec(spec), encoding="utf-8")
    arguments = ("run", tmp_path / "my.yaml", "--out", tmp_path / "study", "--learning-rates", "1e-4,1e-2,1e30")
    code, _, err = lorascope(*arguments)
    assert (code, err) == (1, "")
    summary = json.loads((tmp_path / "study" / "summary.json").read_text(encoding="utf-8"))
    outcomes = {trial["trial_id"]: trial["outcome"] for trial in summary["trials"]}
    assert outcomes["r2-lr1e+30"] == "diverged"
    assert outcomes["r2-lr0.01"] == "finished"
    assert "early exit: " in (tmp_path / "study" / "report.md").read_text(encoding="utf-8")


def test_automatic_rates_are_trained(
    lorascope: Lorascope, model_folders: Mapping[str, str], rows_file: str, tmp_path: Path
) -> None:
    spec = study_of(model_folders["llama"], rows_file, max_steps=STEPS, max_grid_extensions=2)
    (tmp_path / "my.yaml").write_text(dump_spec(spec), encoding="utf-8")
    code, out, _ = lorascope(
        "run", tmp_path / "my.yaml", "--out", tmp_path / "study", "--learning-rates", "auto", "--json"
    )
    assert code == 0
    summary = json.loads(out)
    # alpha = 4 r: the start falls with r^-1/2
    for rank, planned in zip(summary["ranks"], ([6.7e-4, 2e-3, 6e-3], [4.7e-4, 1.4e-3, 4.2e-3]), strict=True):
        assert [rate for rate in rank["learning_rates"] if rate not in rank["added_learning_rates"]] == planned
    assert all(rank["best_learning_rate"] in rank["learning_rates"] for rank in summary["ranks"])
    assert "learning rates" in (tmp_path / "study" / "report.md").read_text(encoding="utf-8")


def test_early_exit_replays_steps_with_the_same_trials(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials share micro-batches: without a trial that stopped since, sums would be taken in another order."""

    class Killed(BaseException):
        pass

    def at_step(step: int) -> None:
        if step == 5:  # behind both rungs
            raise Killed

    taken: list[tuple[int, tuple[str, ...]]] = []

    def train_step(*arguments: Any, **others: Any) -> object:
        taken.append((arguments[1][0].steps_done, tuple(trial.record.trial_id for trial in arguments[1])))
        return train_one(*arguments, **others)

    monkeypatch.setattr(loop, "train_step", train_step)
    execute(spec, tmp_path / "undisturbed")
    undisturbed = taken.copy()
    taken.clear()
    with pytest.raises(Killed):
        execute(spec, tmp_path / "study", at_step)
    taken.clear()
    execute(spec, tmp_path / "study")
    assert taken == undisturbed
