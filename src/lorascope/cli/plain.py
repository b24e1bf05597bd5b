"""Plain-text view of a running study, for logs and pipes."""

import contextlib
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TextIO

from lorascope.cli.formatting import base_line, outcome_line, progress_line, rank_lines, scales, solo_cost
from lorascope.cli.run_state import RunState
from lorascope.records import EvalRecord, LookRecord, ResolvedStudy, StepRecord, TrialOutcome, TrialRecord
from lorascope.run.trackers import SoloResult
from lorascope.text.looks import describe_look
from lorascope.text.numbers import format_count
from lorascope.text.say import say

_LINE_SECONDS = 15.0


class PlainView:
    """Implements the Tracker protocol as lines of text; a context manager."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.perf_counter) -> None:
        self._stream = stream
        self._clock = clock
        self._state = RunState(clock)
        self._written_tenths = 0
        self._written_at = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nothing behind."""

    def phase(self, text: str) -> None:
        """Write the current activity, with the time left where it is known."""
        self._state.phase(text)
        self._write(text if self._state.seconds_left is None else f"{text} ({progress_line(self._state)})")

    def progress(self, share_done: float, seconds_left: float) -> None:
        """Keep how far the run is for the next line."""
        self._state.progress(share_done, seconds_left)

    def note(self, text: str) -> None:
        """Write a note."""
        self._write(f"note: {text}")

    def warning(self, text: str) -> None:
        """Write a warning."""
        self._write(f"WARNING: {text}")

    def begin(self, resolved: ResolvedStudy, trials: Sequence[TrialRecord], done: Sequence[StepRecord]) -> None:
        """Describe the study, or the trials that join it."""
        first = not self._state.rows
        self._state.begin(resolved, trials, done)
        self._written_tenths = self._state.tenths_done
        before = f", {max(record.step for record in done)} done before" if done else ""
        if not first:
            self._write(f"{len(trials)} more: {', '.join(trial.trial_id for trial in trials)}{before}")
            return
        self._write(
            f"{len(trials)} {'trial' if len(trials) == 1 else 'trials'} of "
            f"{resolved.total_steps} {'step' if resolved.total_steps == 1 else 'steps'}{before}: "
            f"{resolved.model} on {resolved.dataset}, "
            f"{format_count(resolved.train_examples)} rows, {format_count(resolved.eval_examples)} held out, "
            f"{resolved.dtype} on {resolved.device}, {scales(trials)}"
        )

    def solo_cost(self, result: SoloResult) -> None:
        """Write the cost of a rank's solo run."""
        self._write(solo_cost(result))

    def step(self, records: Sequence[StepRecord]) -> None:
        """Write a line for each rank at each tenth of the study, and after 15 seconds without one."""
        self._state.step(records)
        tenths = self._state.tenths_done
        if tenths == self._written_tenths and self._clock() - self._written_at < _LINE_SECONDS:
            return
        self._written_tenths = tenths
        self._write_ranks()

    def evaluation(self, record: EvalRecord) -> None:
        """Write the base model's loss once, and a line for each rank once all trials are evaluated after one step."""
        base_is_new = record.step == 0 and self._state.base_loss is None
        self._state.evaluation(record)
        if base_is_new:
            self._write(base_line(self._state))
        elif record.step > 0 and not self._state.activity.startswith("evaluating"):
            self._write_ranks()

    def outcome(self, outcome: TrialOutcome) -> None:
        """Write how a trial ended."""
        self._state.outcome(outcome)
        if outcome.state != "running":
            reason = say(outcome.message) if outcome.message else ""
            self._write(outcome_line(outcome.trial_id, f"{outcome.state} after {outcome.steps} steps", reason))

    def look(self, look: LookRecord) -> None:
        """Write what a look compared and what follows."""
        self.note(describe_look(look))

    def end(self) -> None:
        """Say nothing: the result comes next."""

    def _write_ranks(self) -> None:
        for line in rank_lines(self._state):
            self._write(line)

    def _write(self, text: str) -> None:
        self._written_at = self._clock()
        # a closed pipe must not end a trial; records are stored elsewhere
        with contextlib.suppress(OSError):
            print(text, file=self._stream, flush=True)
