"""A running study in a terminal: one table that is redrawn in place."""

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import psutil
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from lorascope.cli.columns import Column, table
from lorascope.cli.run_state import Board, TrialRow
from lorascope.cli.wording import alone, loss, status
from lorascope.records import CostRecord, EvalRecord, ResolvedStudy, StepRecord, TrialOutcome, TrialRecord

_REDRAWS_PER_SECOND = 2
_LINES_AROUND = 6


class LiveView:
    """Follows the Progress protocol and redraws the board; a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._board = Board()
        # The drawing thread must not read the rows while the training thread replaces them.
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
        """Show what is being done."""
        self._board.phase(text)

    def note(self, text: str) -> None:
        """Print above the table."""
        self._console.print(Text(text, style="dim"))

    def begin(self, resolved: ResolvedStudy, trials: Sequence[TrialRecord], done: Sequence[StepRecord]) -> None:
        """Show the trials."""
        with self._lock:
            self._board.begin(resolved, trials, done)

    def cost(self, record: CostRecord) -> None:
        """Print what a rank costs alone."""
        self.note(alone(record))

    def step(self, records: Sequence[StepRecord]) -> None:
        """Show the new step."""
        with self._lock:
            self._board.step(records)

    def evaluation(self, record: EvalRecord) -> None:
        """Show the new held-out loss."""
        with self._lock:
            self._board.evaluation(record)

    def outcome(self, outcome: TrialOutcome) -> None:
        """Show how the trial ended."""
        with self._lock:
            self._board.outcome(outcome)

    def _draw(self) -> RenderableType:
        with self._lock:
            return draw(self._board, self._console.width, self._console.height, psutil.Process().memory_info().rss)


def draw(board: Board, width: int, height: int, rss_bytes: int) -> RenderableType:
    """Draw the trials that fit, those that run first, and a line on the whole."""
    line = Text(status(board, rss_bytes), style="bold")
    if not board.rows:
        return line
    order = {"running": 0, "waiting": 1}
    rows = list(board.rows.values())
    room = max(height - _LINES_AROUND, 1)
    shown = rows if len(rows) <= room else sorted(rows, key=lambda row: order.get(row.state, 2))[:room]
    parts: list[RenderableType] = [table(_columns(board, shown), width)]
    if len(shown) < len(rows):
        parts.append(Text(f"... and {len(rows) - len(shown)} more trials", style="dim"))
    return Group(*parts, line)


def _columns(board: Board, rows: Sequence[TrialRow]) -> list[Column]:
    everything = [row.trial for row in board.rows.values()]
    several_rates = len({trial.learning_rate for trial in everything}) > 1
    several_seeds = len({trial.seed for trial in everything}) > 1
    return [
        Column(heading="rank", cells=[str(row.trial.rank) for row in rows]),
        Column(heading="alpha", cells=[f"{row.trial.lora_alpha:g}" for row in rows], rank=4),
        Column(heading="scale", cells=[f"{row.trial.scale:.4g}" for row in rows], rank=5),
        Column(
            heading="learning rate", cells=[f"{row.trial.learning_rate:g}" if several_rates else "" for row in rows]
        ),
        Column(heading="seed", cells=[str(row.trial.seed) if several_seeds else "" for row in rows]),
        Column(heading="step", cells=[f"{row.step}/{board.total_steps}" for row in rows], rank=2),
        Column(heading="smoothed train loss", cells=[loss(row.train_loss) for row in rows], rank=1),
        Column(heading="held-out", cells=[loss(row.eval_loss) for row in rows]),
        Column(heading="state", cells=[row.state for row in rows], rank=3, left=True),
    ]
