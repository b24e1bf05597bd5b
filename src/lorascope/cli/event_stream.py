"""Events of a running study as one JSON object a line, for programs."""

import contextlib
import math
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO, TypeVar

from lorascope import __version__
from lorascope.analysis.section import Section
from lorascope.cli import events
from lorascope.errors import InputError, Interrupted
from lorascope.measure.environment import mask_credentials
from lorascope.records import EvalRecord, LookRecord, ResolvedStudy, StepRecord, TrialOutcome, TrialRecord
from lorascope.run.trackers import SoloResult
from lorascope.spec.schema import StudySpec
from lorascope.store.folder import StudyFolder
from lorascope.text.looks import describe_look
from lorascope.text.next_steps import next_steps
from lorascope.text.say import say

if TYPE_CHECKING:
    from lorascope.report import Report

_Shape = TypeVar("_Shape", bound=Section)


class EventStream:
    """Implements the Tracker protocol as lines of JSON; a context manager that writes the first line and the last."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.exit_code = 0
        """Of a run that raises nothing: 0, or 1 where a trial failed."""

    def __enter__(self) -> Self:
        command = mask_credentials(shlex.join(["lorascope", *sys.argv[1:]]))
        self._write(events.StartedEvent(lorascope_version=__version__, command=command))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write(_ended(error, self.exit_code))

    def study(self, spec: StudySpec, folder: Path) -> None:
        """Write where the study is."""
        self._write(events.StudyEvent(folder=str(folder), model=spec.model, ranks=spec.ranks))

    def phase(self, text: str) -> None:
        """Write the current activity."""
        self._write(events.PhaseEvent(text=text))

    def progress(self, share_done: float, seconds_left: float) -> None:
        """Write how far the run is."""
        self._write(events.ProgressEvent(share_done=share_done, seconds_left=seconds_left))

    def note(self, text: str) -> None:
        """Write a note."""
        self._write(events.NoteEvent(text=text))

    def warning(self, text: str) -> None:
        """Write a warning."""
        self._write(events.WarningEvent(text=text))

    def begin(self, resolved: ResolvedStudy, trials: Sequence[TrialRecord], done: Sequence[StepRecord]) -> None:
        """Write the trials of a round."""
        steps = Counter(record.trial_id for record in done)
        planned = tuple(_taken(events.TrialPart, trial, steps_done=steps[trial.trial_id]) for trial in trials)
        self._write(_taken(events.RoundEvent, resolved, trials=planned))

    def solo_cost(self, result: SoloResult) -> None:
        """Write the cost of a rank's solo run."""
        self._write(_taken(events.SoloRunEvent, result))

    def step(self, records: Sequence[StepRecord]) -> None:
        """Write a line for each trial."""
        for record in records:
            loss = _finite(record.nats / record.target_tokens) if record.target_tokens else None
            self._write(_taken(events.StepEvent, record, loss=loss, grad_norm=_finite(record.grad_norm)))

    def evaluation(self, record: EvalRecord) -> None:
        """Write a held-out loss."""
        self._write(_taken(events.EvaluationEvent, record, examples=len(record.example_nats)))

    def outcome(self, outcome: TrialOutcome) -> None:
        """Write how a trial stands or ended."""
        reason = say(outcome.message) if outcome.message else None
        self._write(_taken(events.OutcomeEvent, outcome, reason=reason))

    def look(self, look: LookRecord) -> None:
        """Write what a look compared and what follows."""
        self._write(_taken(events.LookEvent, look, text=describe_look(look)))

    def end(self) -> None:
        """Say nothing: the answer comes next."""

    def answer(self, report: "Report", folder: Path) -> None:
        """Write the answer and where it is explained."""
        summary, use = report.summary, report.summary.recommendation.use
        adapter = None if use.rank is None else StudyFolder(folder).arm_adapter((summary.study.targets, use.rank))
        self._write(
            events.AnswerEvent(
                status=summary.answer.status,
                text=say(summary.answer.text),
                rank=use.rank,
                evidence=use.evidence,
                adapter=str(adapter) if adapter is not None and adapter.exists() else None,
                summary=str(report.summary_json),
                report=str(report.report_html),
                next_steps=tuple(_taken(events.NextStep, step) for step in next_steps(summary, folder)),
            )
        )

    def _write(self, event: events.Event) -> None:
        # a closed pipe must not end a trial; records are stored elsewhere
        with contextlib.suppress(OSError):
            print(event.model_dump_json(), file=self._stream, flush=True)


def _taken(kind: type[_Shape], record: object, **more: object) -> _Shape:
    """Make an event from the attributes of a record that have its fields' names."""
    taken = {name: getattr(record, name) for name in kind.model_fields if name not in more and hasattr(record, name)}
    return kind.model_validate({**taken, **more})


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _ended(error: BaseException | None, exit_code: int) -> events.EndedEvent:
    """Say how the run ended, by its exit code or the exception that ends it."""
    if isinstance(error, KeyboardInterrupt | Interrupted) or exit_code == Interrupted.exit_code:
        return events.EndedEvent(state="interrupted", exit_code=130)
    if isinstance(error, InputError):
        problem, remedy = mask_credentials(error.problem), mask_credentials(error.remedy)
        return events.EndedEvent(state="bad_input", exit_code=2, problem=problem, remedy=remedy)
    if error is not None:
        return events.EndedEvent(state="error", exit_code=1, problem=mask_credentials(str(error)))
    return events.EndedEvent(state="trial_failed" if exit_code else "done", exit_code=1 if exit_code else 0)
