"""State of a running study, built from progress events and shown by the terminal views."""

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lorascope.records import Arm, EvalRecord, ResolvedStudy, Setting, StepRecord, TrialOutcome, TrialRecord

_SMOOTHING = 0.9
_RATE_STEPS = 20


@dataclass(kw_only=True)
class TrialRow:
    """Progress of one trial."""

    trial: TrialRecord
    step: int = 0
    state: str = "waiting"
    eval_loss: float | None = None
    _loss: float = 0.0
    _weight: float = 0.0

    @property
    def train_loss(self) -> float | None:
        """Exponential moving average of the loss in nats per token; None before the first step."""
        return self._loss / self._weight if self._weight else None

    def add(self, record: StepRecord) -> None:
        """Add one step; a loss that is not finite is left to the trial's outcome."""
        self.step = record.step
        loss = record.nats / record.target_tokens if record.target_tokens else math.nan
        if math.isfinite(loss):
            self._loss = _SMOOTHING * self._loss + (1 - _SMOOTHING) * loss
            self._weight = _SMOOTHING * self._weight + (1 - _SMOOTHING)


@dataclass(frozen=True, kw_only=True, slots=True)
class RankRow:
    """Progress of one rank at the learning rate that is best so far; losses are means over its seeds."""

    rank: int
    targets: str
    """Its set of target modules; empty where the study has one."""
    learning_rate: float | None
    """None before a rate is known to be best."""
    seeds: int
    step: int
    train_loss: float | None
    eval_loss: float | None
    """None before the first evaluation after the base model's."""
    states: str
    """Such as: 3 running, 1 stopped."""


def _rank_row(arm: Arm, rows: Sequence[TrialRow]) -> RankRow:
    by_setting: dict[Setting, list[TrialRow]] = {}
    for row in rows:
        by_setting.setdefault(row.trial.setting, []).append(row)
    means = {setting: _mean([row.eval_loss for row in found]) for setting, found in by_setting.items()}
    losses = {setting: loss for setting, loss in means.items() if loss is not None}
    best = min(losses, key=lambda setting: losses[setting], default=None)
    chosen = next(iter(by_setting)) if len(by_setting) == 1 else best
    shown = rows if chosen is None else by_setting[chosen]
    counts = Counter(row.state for row in rows)
    return RankRow(
        rank=arm[1],
        targets=arm[0],
        learning_rate=chosen[1] if chosen else None,
        seeds=len({row.trial.seed for row in shown}),
        step=max(row.step for row in shown),
        train_loss=_mean([row.train_loss for row in shown]),
        eval_loss=None if best is None else losses[best],
        states=", ".join(f"{count} {state}" for state, count in counts.items()) if len(rows) > 1 else rows[0].state,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """Average what is known; None without any."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


class RunState:
    """Progress of all trials, from the events of a run."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._started = clock()
        self._rates: deque[tuple[int, float]] = deque(maxlen=_RATE_STEPS)
        self._phase = "starting"
        self._evaluated: set[str] = set()
        self._evaluated_step = -1
        self._eval_steps = 0
        self._seconds_left: float | None = None
        self._told_at = self._started
        self.base_loss: float | None = None
        self.share_done = 0.0
        """Share of the run's time that has passed."""
        self.step_done = 0
        self.total_steps = 0
        self.rows: dict[str, TrialRow] = {}

    @property
    def activity(self) -> str:
        """The current phase; while trials are evaluated one after the other, with the count of them."""
        trained = [row for row in self.rows.values() if row.state == "running"]
        if self._evaluation_due and len(self._evaluated) < len(trained):
            return f"evaluating {len(self._evaluated) + 1} of {len(trained)}"
        return self._phase

    @property
    def _evaluation_due(self) -> bool:
        """True where the last step is one after which trials are evaluated, by the distance of those seen so far."""
        at = self.step_done
        return at > 0 and (at in {self.total_steps, self._evaluated_step} or at % (self._eval_steps or at + 1) == 0)

    @property
    def elapsed_seconds(self) -> float:
        """Seconds since the run started."""
        return self._clock() - self._started

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens of all trials per second of the last steps; None during warm-up."""
        seconds = sum(seconds for _, seconds in self._rates)
        return sum(tokens for tokens, _ in self._rates) / seconds if seconds else None

    @property
    def tenths_done(self) -> int:
        """Tenths of the run's time that have passed, rounded down."""
        return int(10 * self.share_done)

    @property
    def seconds_left(self) -> float | None:
        """Expected seconds until the report; None before they are known."""
        if self._seconds_left is None:
            return None
        return max(0.0, self._seconds_left - (self._clock() - self._told_at))

    @property
    def rank_rows(self) -> list["RankRow"]:
        """Every rank at its best learning rate so far, ascending, in each set of target modules."""
        arms = sorted({row.trial.arm for row in self.rows.values()})
        return [_rank_row(arm, [row for row in self.rows.values() if row.trial.arm == arm]) for arm in arms]

    def phase(self, text: str) -> None:
        """Set the current activity."""
        self._phase = text

    def progress(self, share_done: float, seconds_left: float) -> None:
        """Set how far the run is."""
        self.share_done, self._seconds_left, self._told_at = share_done, seconds_left, self._clock()

    def begin(self, resolved: ResolvedStudy, trials: Sequence[TrialRecord], done: Sequence[StepRecord]) -> None:
        """Add a row for every trial of a round, after those of earlier rounds."""
        self.total_steps = resolved.total_steps
        self.rows = self.rows | {trial.trial_id: TrialRow(trial=trial) for trial in trials}
        for record in done:
            self.rows[record.trial_id].add(record)

    def step(self, records: Sequence[StepRecord]) -> None:
        """Add a step to the trials that took it."""
        if not records:
            return
        if not records[0].warmup:
            self._rates.append((sum(record.tokens for record in records), records[0].seconds))
        if records[0].step != self.step_done:
            self._evaluated.clear()
        self.step_done = records[0].step
        for record in records:
            row = self.rows[record.trial_id]
            row.state = "running"
            row.add(record)

    def evaluation(self, record: EvalRecord) -> None:
        """Set a trial's latest held-out loss."""
        tokens = sum(record.example_target_tokens)
        loss = math.fsum(record.example_nats) / tokens if tokens else None
        if record.step == 0:
            self.base_loss = loss
            return
        self._eval_steps = self._eval_steps or record.step
        self._evaluated_step = record.step
        self._evaluated.add(record.trial_id)
        self.rows[record.trial_id].eval_loss = loss

    def outcome(self, outcome: TrialOutcome) -> None:
        """Set how a trial ended."""
        row = self.rows[outcome.trial_id]
        row.step, row.state = outcome.steps, outcome.state
