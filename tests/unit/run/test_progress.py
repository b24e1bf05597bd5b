from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from lorascope.records import ActivityRecord, EvalRecord, PredictionRecord, ProgressRecord, TrialOutcome
from lorascope.run.progress import RunProgress
from lorascope.search.allocation import Pace
from lorascope.search.solo_runs import pending_solo_runs
from lorascope.search.trials import planned_arms
from lorascope.search.work import TRAINING, Sizes, TrialProgress, planned_work
from lorascope.spec.schema import StudySpec
from support.cli import Clock, Script

SIZES = Sizes(total_steps=20, step_tokens=100.0, heaviest_tokens=100.0, eval_tokens=400.0, eval_examples=4)
FORWARD_SECONDS = 0.001
"""Seconds that a token takes to go forward in these runs."""


@dataclass
class Run:
    """A run of ranks 8 and 128 in which every unit of work takes as long, apart from ``slow`` activities."""

    spec: StudySpec
    earlier: Sequence[ActivityRecord] = ()
    clock: Clock = field(default_factory=Clock)
    measured: Pace | None = None
    told: list[tuple[float, ProgressRecord, dict[str, ActivityRecord]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.script = Script(self.clock, self.spec)
        self.progress = RunProgress(
            self.spec,
            SIZES,
            earlier=self.earlier,
            tell=self.tell,
            began=self.clock.now,
            clock=self.clock,
            measured=self.measured,
        )
        self.progress.expect(planned_work(self.spec, SIZES))
        trials = [TrialProgress(trial=trial) for trial in self.script.trials]
        self.progress.begin_round(trials, before=[], losses={}, looks=[])

    def tell(self, progress: ProgressRecord, activities: Sequence[ActivityRecord]) -> None:
        self.told.append((self.clock.now, progress, {one.name: one for one in activities}))

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    def lap(self, activity: Any, work: float = 0.0) -> None:
        self.wait(work * FORWARD_SECONDS)
        self.progress.lap(activity, work)

    def evaluate(self, step: int) -> None:
        for trial in self.script.trials:
            seconds = 400 * FORWARD_SECONDS
            if step or trial == self.script.trials[0]:  # the base's record is copied, its seconds too
                self.wait(seconds)
            self.progress.evaluation(
                EvalRecord(
                    trial_id=trial.trial_id,
                    step=step,
                    example_nats=(1.0,),
                    example_target_tokens=(1,),
                    seconds=seconds,
                )
            )

    def train(self) -> None:
        self.evaluate(0)
        for step in range(1, SIZES.total_steps + 1):
            self.wait(2 * TRAINING * 100 * FORWARD_SECONDS)
            self.progress.step(self.script.records(step, warmup=step == 1))
            if step % 5 == 0:
                self.evaluate(step)
        for trial in self.script.trials:
            self.progress.outcome(TrialOutcome(trial_id=trial.trial_id, state="finished", steps=20, message=None))


def spec_of(**changes: Any) -> StudySpec:
    fields: dict[str, Any] = {
        "ranks": (8, 128), "cost": "quick", "truncation": True, "forgetting_text": "none", "samples": 0,
    }  # fmt: skip
    return StudySpec.model_validate(fields | changes)


def whole_run(run: Run) -> None:
    for arm, repeat in pending_solo_runs(run.spec, planned_arms(run.spec), []):
        run.wait(TRAINING * 200 * FORWARD_SECONDS + (0.4 if repeat else 0.0))
        run.progress.solo_run(arm, repeat, [])
    run.train()
    work = planned_work(run.spec, SIZES)
    for activity in ("spectra", "truncation", "proof"):
        run.lap(activity, work[activity])
    run.progress.tell()


def test_time_left_counts_all_that_follows_from_the_first_tenth_on() -> None:
    run = Run(spec_of())
    run.wait(1.0)
    run.progress.lap("preparation")
    assert run.told == []
    whole_run(run)
    end = run.clock.now
    fixed = run.told[-1][1].seconds_left
    assert fixed == run.told[-1][2]["report"].seconds_left
    late = [(at, progress) for at, progress, _ in run.told if at >= end / 10]
    assert len(late) > 10
    for at, progress in late:
        loading = 1.5 if at < end else 0.0
        assert progress.seconds_left - fixed - loading == pytest.approx(end - at, rel=0.02, abs=0.05)
        assert progress.share_done == pytest.approx(at / (at + progress.seconds_left))


def test_progress_is_told_at_most_once_a_second() -> None:
    run = Run(spec_of())
    whole_run(run)
    times = [at for at, _, _ in run.told]
    assert all(later - earlier >= 1.0 for earlier, later in pairwise(times[:-1]))


def test_activities_add_up_to_the_run_and_keep_what_was_predicted_first() -> None:
    run = Run(spec_of())
    whole_run(run)
    activities = run.told[-1][2]
    assert sum(one.spent_seconds for one in activities.values()) == pytest.approx(run.clock.now)
    for name in ("solo_runs", "training", "evaluation", "truncation"):
        assert activities[name].seconds_left == pytest.approx(0.0)
        assert activities[name].predicted_seconds == pytest.approx(activities[name].spent_seconds, rel=0.05)


def test_a_continued_run_adds_to_the_times_of_the_run_before() -> None:
    before = ActivityRecord(name="training", predicted_seconds=50.0, spent_seconds=30.0, seconds_left=20.0)
    run = Run(spec_of(), earlier=[before])
    run.train()
    run.progress.tell()
    training = run.told[-1][2]["training"]
    assert training.predicted_seconds == 50.0
    assert training.spent_seconds == pytest.approx(30.0 + 20 * 2 * TRAINING * 100 * FORWARD_SECONDS)


def test_a_machine_that_slows_down_is_followed() -> None:
    run = Run(spec_of(ranks=(8,), truncation=False, cost="off"))
    run.evaluate(0)
    for step in range(1, 16):
        run.wait(10.0 if step < 6 else 40.0)
        run.progress.step(run.script.records(step))
    run.progress.tell()
    left = run.told[-1][2]["training"].seconds_left
    assert left is not None
    assert 5 * 35.0 < left < 5 * 40.0


def test_the_cost_model_is_believed_before_anything_was_measured() -> None:
    run = Run(spec_of(ranks=(8,)))
    alone = PredictionRecord(
        what="alone", rank=8, device="cpu", tokens=100.0, step_seconds=0.6, factor=1.0, step_flops=1.0, step_bytes=1.0,
        base_bytes=1, adapter_bytes=1, gradient_bytes=1, optimizer_bytes=1, activation_bytes=1, rest_bytes=1,
    )  # fmt: skip
    run.progress.guess([alone], [])
    run.progress.tell()
    training = run.told[-1][2]["training"]
    assert training.seconds_left == pytest.approx(20 * 0.6)
    assert run.told[-1][2]["truncation"].seconds_left == pytest.approx(3 * 400 * 0.6 / (TRAINING * 100))


def test_the_pace_before_the_run_stands_for_what_was_not_measured_in_it() -> None:
    run = Run(spec_of(cost="off"), measured=Pace(training=0.004, evaluation=0.003))
    assert run.progress.seconds("training", 10.0) == pytest.approx(0.04)
    assert run.progress.seconds("spectra", 10.0) == pytest.approx(0.03)
    run.lap("evaluation", 100.0)
    assert run.progress.seconds("training", 10.0) == pytest.approx(0.04)
    assert run.progress.seconds("spectra", 10.0) == pytest.approx(10 * FORWARD_SECONDS)
    run.lap("training", 100.0)
    assert run.progress.seconds("training", 10.0) == pytest.approx(10 * FORWARD_SECONDS)
