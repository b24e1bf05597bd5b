"""Progress of a run: the time that each activity took, and the time left for all that is still to come.

The time left is the work left of each activity (``search.work``) times its seconds a unit as measured in this run.
Before an activity was measured, it is as fast as the one most like it that was, or else as the cost model predicts.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from lorascope.records import (
    ActivityRecord,
    Arm,
    EvalRecord,
    LookRecord,
    PredictionRecord,
    ProgressRecord,
    SoloRun,
    StepRecord,
    TrialOutcome,
    TrialRecord,
)
from lorascope.search.allocation import Pace
from lorascope.search.work import (
    TRAINING,
    Activity,
    Overhead,
    Sizes,
    TrialProgress,
    Work,
    solo_work,
    training_work,
)
from lorascope.spec.schema import StudySpec

Tell = Callable[[ProgressRecord, Sequence[ActivityRecord]], None]

_PREDICTION_SECONDS = 3.0
_PEFT_SECONDS = 1.5
_REPORT_SECONDS = 2.0
"""Measured once for SmolLM2-135M (``benchmarks/time_left.py``), in seconds of the processor: predictions of costs took
2.4, loading PEFT and two adapters 1.5, and the report 1.5."""
_TELL_SECONDS = 1.0
_MEMORY_SECONDS = 60.0
"""Time after which a measured second counts half as much: the pace follows a machine that slows down."""
_ALIKE: tuple[Activity, ...] = ("evaluation", "further_rows", "forgetting_text", "truncation", "training")
"""Activities whose pace stands for that of one that was not measured yet, the most alike first."""


@dataclass(slots=True)
class _Pace:
    """Seconds a unit of work."""

    seconds: float = 0.0
    work: float = 0.0

    def add(self, seconds: float, work: float) -> None:
        keep = 0.5 ** (seconds / _MEMORY_SECONDS)
        self.seconds, self.work = keep * self.seconds + seconds, keep * self.work + work

    @property
    def value(self) -> float | None:
        return self.seconds / self.work if self.work else None


@dataclass(slots=True)
class _Account:
    """Time and work of one activity."""

    spent: float = 0.0
    predicted: float | None = None
    left: float = 0.0
    """Work."""
    pace: _Pace = field(default_factory=_Pace)


class RunProgress:
    """Keeps account of a run's time, and tells it at most once a second.

    Args:
        spec: the study.
        sizes: of its rows and model.
        earlier: the times of runs that this one continues.
        tell: takes how far the run is, and every activity.
        began: moment of the clock at which the run began.
        limit: returns the most seconds that may follow, those that a time budget leaves.
        clock: seconds from any moment on.
        measured: the pace when the run began, for what it has not measured since.
    """

    def __init__(
        self,
        spec: StudySpec,
        sizes: Sizes,
        *,
        earlier: Iterable[ActivityRecord],
        tell: Tell,
        began: float,
        limit: Callable[[], float] = lambda: math.inf,
        clock: Callable[[], float] = time.monotonic,
        measured: Pace | None = None,
    ) -> None:
        self.spec = spec
        self.sizes = sizes
        self._tell = tell
        self._limit = limit
        self._clock = clock
        self._measured = measured
        self._at = self._told_at = began
        self._accounts: dict[str, _Account] = {
            one.name: _Account(spent=one.spent_seconds, predicted=one.predicted_seconds) for one in earlier
        }
        self._guess: float | None = None
        self._round: dict[str, TrialProgress] = {}
        self._before: Sequence[TrialRecord] = ()
        self._looks: Sequence[LookRecord] = ()
        self._losses: dict[str, float] = {}
        self._fixed = {"report": _REPORT_SECONDS}

    def lap(self, activity: Activity | Overhead, work: float = 0.0, *, steady: bool = True) -> None:
        """Give the time since the last lap to an activity.

        Args:
            activity: what took the time.
            work: how much of it was done.
            steady: False for a warm-up, from which no pace follows.
        """
        now = self._clock()
        seconds, self._at = now - self._at, now
        account = self._account(activity)
        account.spent += seconds
        account.left = max(0.0, account.left - work)
        if work and steady:
            account.pace.add(seconds, work)
        self._fixed.pop(activity, None)
        if now - self._told_at >= _TELL_SECONDS:
            self.tell()

    def expect(self, work: Work) -> None:
        """Set the work left of activities."""
        for activity, left in work.items():
            self._account(activity).left = left

    def expect_solo_runs(self, pending: Iterable[tuple[Arm, int]]) -> None:
        """Set the solo runs left."""
        self.expect({"solo_runs": solo_work(self.spec, self.sizes, pending)})

    def expect_predictions(self) -> None:
        """Expect that costs are predicted."""
        self._fixed["predictions"] = _PREDICTION_SECONDS

    def guess(self, records: Iterable[PredictionRecord], runs: Iterable[SoloRun]) -> None:
        """Guess the pace of training from the cost model, corrected by the steps of solo runs where they are there."""
        alone = {(one.targets, one.rank): one for one in records if one.what == "alone"}
        measured = [
            seconds / (TRAINING * tokens * self.sizes.token(run.arm))
            for run in runs
            for seconds, tokens in zip(run.measured_seconds, run.step_tokens[run.warmup_steps :], strict=True)
        ]
        modelled = [one.step_seconds / (TRAINING * one.tokens * self.sizes.token(arm)) for arm, one in alone.items()]
        if measured or modelled:
            self._guess = fmean(measured or modelled)

    def solo_run(self, arm: Arm, repeat: int, runs: Sequence[SoloRun]) -> None:
        """Give the time since the last lap to a solo run; training is as fast as all of them were."""
        self.guess([], runs)
        self.lap("solo_runs", solo_work(self.spec, self.sizes, [(arm, repeat)]))

    def begin_round(
        self,
        trials: Iterable[TrialProgress],
        *,
        before: Sequence[TrialRecord],
        losses: Mapping[str, float],
        looks: Sequence[LookRecord],
    ) -> None:
        """Begin a round of the search; see ``training_work``."""
        self._round = {one.trial.trial_id: one for one in trials}
        self._before, self._losses, self._looks = before, dict(losses), looks

    def step(self, records: Sequence[StepRecord]) -> None:
        """Give the time since the last lap to a step of these trials."""
        work = 0.0
        for record in records:
            trial = self._round[record.trial_id]
            trial.steps = record.step
            work += TRAINING * record.tokens * self.sizes.token(trial.trial.arm)
        self.lap("training", work, steady=not any(record.warmup for record in records))

    def evaluation(self, record: EvalRecord) -> None:
        """Give the time since the last lap to an evaluation; the base's is copied to each trial, its time too."""
        trial = self._round[record.trial_id]
        is_copy = record.step == 0 and (bool(self._before) or any(one.evaluated >= 0 for one in self._round.values()))
        trial.evaluated = record.step
        if record.step and record.loss is not None:
            self._losses[record.trial_id] = record.loss
        whole = self.sizes.evaluation(trial.trial.arm) if record.step else self.sizes.eval_tokens
        self.lap("evaluation", 0.0 if is_copy else whole)

    def outcome(self, outcome: TrialOutcome) -> None:
        """Keep how a trial stands."""
        if outcome.trial_id in self._round:
            trial = self._round[outcome.trial_id]
            trial.steps, trial.ended = outcome.steps, outcome.state != "running"
            trial.evaluated = min(trial.evaluated, outcome.steps)  # it may begin again from a checkpoint

    def tell(self) -> None:
        """Tell how far the run is, once any pace is known."""
        self._told_at = self._clock()
        self.expect(
            training_work(
                self.spec,
                self.sizes,
                list(self._round.values()),
                before=self._before,
                losses=self._losses,
                looks=self._looks,
            )
        )
        records = [self._record(name) for name in {**self._accounts, **self._fixed}]
        if any(record.seconds_left is None for record in records):
            return
        spent = sum(record.spent_seconds for record in records)
        left = min(sum(record.seconds_left or 0.0 for record in records), max(0.0, self._limit()))
        self._tell(ProgressRecord(share_done=spent / (spent + left), seconds_left=left), records)

    def seconds(self, activity: Activity, work: float) -> float:
        """Return what so much work takes at the pace of this run; 0 where none is known yet."""
        return work * (self._pace(activity) or 0.0)

    def _record(self, name: str) -> ActivityRecord:
        account, left = self._account(name), self._seconds_left(name)
        if account.predicted is None and left:
            account.predicted = account.spent + left
        return ActivityRecord(
            name=name, predicted_seconds=account.predicted, spent_seconds=account.spent, seconds_left=left
        )

    def _seconds_left(self, name: str) -> float | None:
        account, pace = self._account(name), self._pace(name)
        if not account.left:
            return self._fixed.get(name, 0.0)
        if pace is None:
            return None
        loading = _PEFT_SECONDS if name == "proof" and account.pace.value is None else 0.0
        return account.left * pace + loading

    def _pace(self, name: str) -> float | None:
        alike = [self._account(other).pace.value for other in _ALIKE]
        training, evaluation = (self._measured.training, self._measured.evaluation) if self._measured else (None, None)
        is_training = name in {"training", "solo_runs"}
        guesses = [training, self._guess, *alike] if is_training else [*alike, evaluation, self._guess]
        return next((pace for pace in (self._account(name).pace.value, *guesses) if pace is not None), None)

    def _account(self, name: str) -> _Account:
        return self._accounts.setdefault(name, _Account())
