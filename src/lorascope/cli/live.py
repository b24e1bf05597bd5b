"""Live terminal view of a running study: a bar and one line a rank, redrawn in place."""

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import psutil
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lorascope.cli.columns import Column, make_table
from lorascope.cli.formatting import format_loss, progress_line, solo_cost, status_line
from lorascope.cli.run_state import RankRow, RunState
from lorascope.records import EvalRecord, LookRecord, ResolvedStudy, StepRecord, TrialOutcome, TrialRecord
from lorascope.run.trackers import SoloResult
from lorascope.text.looks import describe_look

_REDRAWS_PER_SECOND = 2
_OTHER_LINES = 7


class LiveView:
    """Implements the Tracker protocol as a bar and a table of ranks; a context manager."""

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

    def progress(self, share_done: float, seconds_left: float) -> None:
        """Move the bar."""
        self._state.progress(share_done, seconds_left)

    def note(self, text: str) -> None:
        """Print above the table."""
        self._console.print(Text(text, style="dim"))

    def warning(self, text: str) -> None:
        """Print above the table, in red."""
        self._console.print(Text(f"WARNING  {text}", style="bold red"))

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

    def look(self, look: LookRecord) -> None:
        """Print what a look compared and what follows."""
        self.note(describe_look(look))

    def end(self) -> None:
        """Keep the table until the view closes: the report comes next."""

    def _draw(self) -> RenderableType:
        with self._lock:
            return draw(self._state, self._console.width, self._console.height, psutil.Process().memory_info().rss)


def draw(state: RunState, width: int, height: int, rss_bytes: int) -> RenderableType:
    """Draw the activity, a bar, a line for each rank as far as the screen is high, and a line about the machine."""
    machine = Text(f"{state.activity} · {status_line(state, rss_bytes)}", style="bold")
    if not state.rows:
        return machine if state.seconds_left is None else Group(_bar(state, width), machine)
    rows = state.rank_rows
    shown = rows[: max(height - _OTHER_LINES, 1)]
    parts: list[RenderableType] = [_bar(state, width), make_table(_columns(state, shown), width)]
    if len(shown) < len(rows):
        parts.append(Text(f"... and {len(rows) - len(shown)} more ranks", style="dim"))
    return Group(*parts, machine)


def _bar(state: RunState, width: int) -> Table:
    line = progress_line(state)
    grid = Table.grid(padding=(0, 1, 0, 0))
    bar = ProgressBar(total=1.0, completed=state.share_done, width=max(8, min(40, width - len(line) - 2)))
    grid.add_row(bar, Text(line, no_wrap=True))
    return grid


def _columns(state: RunState, rows: Sequence[RankRow]) -> list[Column]:
    trials = [row.trial for row in state.rows.values()]
    several_rates = len({trial.learning_rate for trial in trials}) > 1
    several_seeds = len({trial.seed for trial in trials}) > 1
    rates = ["-" if row.learning_rate is None else f"{row.learning_rate:g}" for row in rows]
    return [
        Column(heading="rank", cells=["base", *(str(row.rank) for row in rows)]),
        Column(heading="targets", cells=["", *(row.targets for row in rows)], left=True),
        Column(heading="best rate", cells=["", *(rate if several_rates else "" for rate in rates)], priority=3),
        Column(heading="seeds", cells=["", *(str(row.seeds) if several_seeds else "" for row in rows)], priority=4),
        Column(heading="step", cells=["", *(f"{row.step}/{state.total_steps}" for row in rows)], priority=2),
        Column(heading="train loss", cells=["", *(format_loss(row.train_loss) for row in rows)], priority=1),
        Column(
            heading="held-out loss", cells=[format_loss(state.base_loss), *(format_loss(row.eval_loss) for row in rows)]
        ),
        Column(heading="runs", cells=["", *(row.states for row in rows)], priority=5, left=True),
    ]
