"""State of a running study, built from progress events and shown by the terminal views."""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lorascope.records import EvalRecord, ResolvedStudy, StepRecord, TrialOutcome, TrialRecord

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


class RunState:
    """Progress of all trials, from the events of a run."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._started = clock()
        self._first_step: float | None = None
        self._steps_seen = 0
        self._rates: deque[tuple[int, float]] = deque(maxlen=_RATE_STEPS)
        self.activity = "starting"
        self.total_steps = 0
        self.rows: dict[str, TrialRow] = {}

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
        """Tenths of the planned steps that were done or skipped, rounded down."""
        planned = len(self.rows) * self.total_steps
        return 10 * (planned - self._steps_left) // planned if planned else 0

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds to the last step, evaluations included; None before the first step and after the last."""
        if self._first_step is None or not self._steps_left:
            return None
        return (self._clock() - self._first_step) / self._steps_seen * self._steps_left

    @property
    def _steps_left(self) -> int:
        return sum(self.total_steps - row.step for row in self.rows.values() if row.state in {"waiting", "running"})

    def phase(self, text: str) -> None:
        """Set the current activity."""
        self.activity = text

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
        if self._first_step is None:
            self._first_step = self._clock() - records[0].seconds
        self._steps_seen += len(records)
        if not records[0].warmup:
            self._rates.append((sum(record.tokens for record in records), records[0].seconds))
        for record in records:
            row = self.rows[record.trial_id]
            row.state = "running"
            row.add(record)

    def evaluation(self, record: EvalRecord) -> None:
        """Set a trial's latest held-out loss."""
        tokens = sum(record.example_target_tokens)
        if tokens:
            self.rows[record.trial_id].eval_loss = math.fsum(record.example_nats) / tokens

    def outcome(self, outcome: TrialOutcome) -> None:
        """Set how a trial ended."""
        row = self.rows[outcome.trial_id]
        row.step, row.state = outcome.steps, outcome.state
