"""Live terminal view of a running study: one table that is redrawn in place."""

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import psutil
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from lorascope.cli.columns import Column, make_table
from lorascope.cli.formatting import format_loss, solo_cost, status_line
from lorascope.cli.run_state import RunState, TrialRow
from lorascope.records import EvalRecord, ResolvedStudy, StepRecord, TrialOutcome, TrialRecord
from lorascope.run.trackers import SoloResult

_REDRAWS_PER_SECOND = 2
_OTHER_LINES = 6


class LiveView:
    """Implements the Tracker protocol as a table of trials; a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._state = RunState()
        # the drawing thread must not read rows while the training thread replaces them
        self._lock = threading.Lock()
        self._live = Live(
            console=console, get_renderable=self._draw, refresh_per_second=_REDRAWS_PER_SECOND, transient=True
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def phase(self, text: str) -> None:
        """Show the current activity."""
        self._state.phase(text)

    def note(self, text: str) -> None:
        """Print above the table."""
        self._console.print(Text(text, style="dim"))

    def begin(self, resolved: ResolvedStudy, trials: Sequence[TrialRecord], done: Sequence[StepRecord]) -> None:
        """Show the trials."""
        with self._lock:
            self._state.begin(resolved, trials, done)

    def solo_cost(self, result: SoloResult) -> None:
        """Print the cost of a rank's solo run."""
        self.note(solo_cost(result))

    def step(self, records: Sequence[StepRecord]) -> None:
        """Show the new step."""
        with self._lock:
            self._state.step(records)

    def evaluation(self, record: EvalRecord) -> None:
        """Show the new held-out loss."""
        with self._lock:
            self._state.evaluation(record)

    def outcome(self, outcome: TrialOutcome) -> None:
        """Show how the trial ended."""
        with self._lock:
            self._state.outcome(outcome)

    def end(self) -> None:
        """Keep the table until the view closes: the report comes next."""

    def _draw(self) -> RenderableType:
        with self._lock:
            return draw(self._state, self._console.width, self._console.height, psutil.Process().memory_info().rss)


def draw(state: RunState, width: int, height: int, rss_bytes: int) -> RenderableType:
    """Draw as many trials as fit, running ones first, and a summary line."""
    summary = Text(status_line(state, rss_bytes), style="bold")
    if not state.rows:
        return summary
    order = {"running": 0, "waiting": 1}
    rows = list(state.rows.values())
    most = max(height - _OTHER_LINES, 1)
    shown = rows if len(rows) <= most else sorted(rows, key=lambda row: order.get(row.state, 2))[:most]
    parts: list[RenderableType] = [make_table(_columns(state, shown), width)]
    if len(shown) < len(rows):
        parts.append(Text(f"... and {len(rows) - len(shown)} more trials", style="dim"))
    return Group(*parts, summary)


def _columns(state: RunState, rows: Sequence[TrialRow]) -> list[Column]:
    trials = [row.trial for row in state.rows.values()]
    several_rates = len({trial.learning_rate for trial in trials}) > 1
    several_seeds = len({trial.seed for trial in trials}) > 1
    return [
        Column(heading="rank", cells=[str(row.trial.rank) for row in rows]),
        Column(heading="alpha", cells=[f"{row.trial.lora_alpha:g}" for row in rows], priority=4),
        Column(heading="scale", cells=[f"{row.trial.scale:.4g}" for row in rows], priority=5),
        Column(
            heading="learning rate", cells=[f"{row.trial.learning_rate:g}" if several_rates else "" for row in rows]
        ),
        Column(heading="seed", cells=[str(row.trial.seed) if several_seeds else "" for row in rows]),
        Column(heading="step", cells=[f"{row.step}/{state.total_steps}" for row in rows], priority=2),
        Column(heading="smoothed train loss", cells=[format_loss(row.train_loss) for row in rows], priority=1),
        Column(heading="held-out", cells=[format_loss(row.eval_loss) for row in rows]),
        Column(heading="state", cells=[row.state for row in rows], priority=3, left=True),
    ]
