"""What is known of a running study, gathered from its events; how it looks is decided elsewhere."""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lorascope.records import CostRecord, EvalRecord, ResolvedStudy, StepRecord, TrialOutcome, TrialRecord

_SMOOTHING = 0.9
_RATE_STEPS = 20


@dataclass(kw_only=True)
class TrialRow:
    """One trial as it stands."""

    trial: TrialRecord
    step: int = 0
    state: str = "waiting"
    eval_loss: float | None = None
    _loss: float = 0.0
    _weight: float = 0.0

    @property
    def train_loss(self) -> float | None:
        """Mean loss in nats a token, weighted towards the last steps; None before the first."""
        return self._loss / self._weight if self._weight else None

    def add(self, record: StepRecord) -> None:
        """Count one step; a loss that is not finite shows in the trial's outcome instead."""
        self.step = record.step
        loss = record.nats / record.target_tokens if record.target_tokens else math.nan
        if math.isfinite(loss):
            self._loss = _SMOOTHING * self._loss + (1 - _SMOOTHING) * loss
            self._weight = _SMOOTHING * self._weight + (1 - _SMOOTHING)


class Board:
    """The state that a view shows; follows the Progress protocol."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._started = clock()
        self._first_step: float | None = None
        self._steps_seen = 0
        self._rates: deque[tuple[int, float]] = deque(maxlen=_RATE_STEPS)
        self.doing = "starting"
        self.total_steps = 0
        self.rows: dict[str, TrialRow] = {}

    @property
    def elapsed_seconds(self) -> float:
        """Seconds since the board was made."""
        return self._clock() - self._started

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens of all trials in a second of stepping, over the last steps; None during warm-up."""
        seconds = sum(seconds for _, seconds in self._rates)
        return sum(tokens for tokens, _ in self._rates) / seconds if seconds else None

    @property
    def tenths_done(self) -> int:
        """Full tenths of the planned steps that are done or will not be."""
        planned = len(self.rows) * self.total_steps
        return 10 * (planned - self._steps_left) // planned if planned else 0

    @property
    def seconds_left(self) -> float | None:
        """Seconds to the last step at the pace so far, evaluations included; None where none can be told."""
        if self._first_step is None or not self._steps_left:
            return None
        return (self._clock() - self._first_step) / self._steps_seen * self._steps_left

    @property
    def _steps_left(self) -> int:
        return sum(self.total_steps - row.step for row in self.rows.values() if row.state in {"waiting", "running"})

    def phase(self, text: str) -> None:
        """Remember what is being done."""
        self.doing = text

    def note(self, text: str) -> None:
        """Leave notes to the view."""

    def begin(self, resolved: ResolvedStudy, trials: Sequence[TrialRecord], done: Sequence[StepRecord]) -> None:
        """Make a row for every trial of a pack, below those of the packs before."""
        self.total_steps = resolved.total_steps
        self.rows = self.rows | {trial.trial_id: TrialRow(trial=trial) for trial in trials}
        for record in done:
            self.rows[record.trial_id].add(record)

    def cost(self, record: CostRecord) -> None:
        """Leave costs to the view."""

    def step(self, records: Sequence[StepRecord]) -> None:
        """Count a step of the trials that took it."""
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
        """Remember a trial's latest held-out loss."""
        tokens = sum(record.example_target_tokens)
        if tokens:
            self.rows[record.trial_id].eval_loss = math.fsum(record.example_nats) / tokens

    def outcome(self, outcome: TrialOutcome) -> None:
        """Remember how a trial ended."""
        row = self.rows[outcome.trial_id]
        row.step, row.state = outcome.steps, outcome.state
