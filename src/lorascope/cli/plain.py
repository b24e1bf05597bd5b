"""A running study as lines of text, for logs and pipes."""

import contextlib
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TextIO

import psutil

from lorascope.cli.run_state import Board
from lorascope.cli.wording import alone, ending, loss, scales, status
from lorascope.records import CostRecord, EvalRecord, ResolvedStudy, StepRecord, TrialOutcome, TrialRecord
from lorascope.text.numbers import format_count

_LINE_SECONDS = 15.0


class PlainView:
    """Follows the Progress protocol and writes a line for what matters; a context manager."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.perf_counter) -> None:
        self._stream = stream
        self._clock = clock
        self._board = Board(clock)
        self._said_tenths = 0
        self._said_at = clock()
        self._evaluated: dict[str, str] = {}
        self._evaluated_step = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._say_evaluations()

    def phase(self, text: str) -> None:
        """Write what is being done."""
        self._board.phase(text)
        self._say(text)

    def note(self, text: str) -> None:
        """Write it."""
        self._say(f"note: {text}")

    def begin(self, resolved: ResolvedStudy, trials: Sequence[TrialRecord], done: Sequence[StepRecord]) -> None:
        """Write what the study is, or what is added to it."""
        first = not self._board.rows
        self._board.begin(resolved, trials, done)
        self._said_tenths = self._board.tenths_done
        before = f", {max(record.step for record in done)} done before" if done else ""
        if not first:
            self._say(f"{len(trials)} more: {', '.join(trial.trial_id for trial in trials)}{before}")
            return
        self._say(
            f"{len(trials)} {'trial' if len(trials) == 1 else 'trials'} of "
            f"{resolved.total_steps} {'step' if resolved.total_steps == 1 else 'steps'}{before}: "
            f"{resolved.model} on {resolved.dataset}, "
            f"{format_count(resolved.train_examples)} rows, {format_count(resolved.eval_examples)} held out, "
            f"{resolved.dtype} on {resolved.device}, {scales(trials)}"
        )

    def cost(self, record: CostRecord) -> None:
        """Write what a rank costs alone."""
        self._say(alone(record))

    def step(self, records: Sequence[StepRecord]) -> None:
        """Write a line at each tenth of the study, and after a quiet quarter of a minute."""
        self._board.step(records)
        tenths = self._board.tenths_done
        if tenths == self._said_tenths and self._clock() - self._said_at < _LINE_SECONDS:
            return
        self._said_tenths = tenths
        losses = ", ".join(f"{r.trial_id} {loss(self._board.rows[r.trial_id].train_loss)}" for r in records)
        step = f"step {records[0].step}/{self._board.total_steps}"
        self._say(f"{step}: smoothed train loss {losses} | {status(self._board, psutil.Process().memory_info().rss)}")

    def evaluation(self, record: EvalRecord) -> None:
        """Gather the held-out losses of one step for one line."""
        if record.step != self._evaluated_step or record.trial_id in self._evaluated:
            self._say_evaluations()
        self._board.evaluation(record)
        self._evaluated_step = record.step
        self._evaluated[record.trial_id] = loss(self._board.rows[record.trial_id].eval_loss)

    def outcome(self, outcome: TrialOutcome) -> None:
        """Write how a trial ended."""
        self._board.outcome(outcome)
        if outcome.state != "running":
            self._say(ending(outcome.trial_id, f"{outcome.state} after {outcome.steps} steps", outcome.message))

    def _say_evaluations(self) -> None:
        if self._evaluated:
            losses = ", ".join(f"{trial_id} {text}" for trial_id, text in self._evaluated.items())
            self._evaluated = {}
            self._say(f"step {self._evaluated_step}: held-out loss {losses}")

    def _say(self, text: str) -> None:
        self._say_evaluations()
        self._said_at = self._clock()
        # A reader that went away must not cost a trial; the study's records do not pass here.
        with contextlib.suppress(OSError):
            print(text, file=self._stream, flush=True)
