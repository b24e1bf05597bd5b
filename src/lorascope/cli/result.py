"""Result of a run for the terminal: the table of ranks, the recommendation, paths."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorascope.analysis import StudySummary
from lorascope.cli.columns import Column, make_table
from lorascope.cli.formatting import outcome_line
from lorascope.records import AS_PLANNED
from lorascope.text.say import say
from lorascope.text.tables.advice import headline, needs
from lorascope.text.tables.ranks import rank_columns
from lorascope.text.tables.table import NONE

COLUMNS = {
    "rank": ("rank", 0),
    "scale": ("scale", 7),
    "lora_alpha": ("alpha", 1),
    "best_learning_rate": ("best rate", 5),
    "trainable_parameters": ("params", 3),
    "eval_loss": ("held-out", 0),
    "interval": ("95 % interval", 1),
    "train_loss": ("train", 4),
    "step_seconds": ("step", 6),
    "runtime_seconds": ("runtime", 2),
    "peak_memory_bytes": ("peak", 2),
}
"""Columns of the table of ranks: heading and priority."""


def show_result(console: Console, summary: StudySummary, folder: Path, report: Path) -> None:
    """Print the result of a study."""
    console.print()
    console.print(make_table(_columns(summary), console.width))
    seeds = max(rank.seeds for rank in summary.ranks)
    over = f"rows and {seeds} seeds" if seeds > 1 else "rows, one seed"
    note = (
        f"Losses in nats per token, intervals over held-out {over}. Step time and peak memory from solo runs; "
        "runtime: steps x step time."
    )
    console.print(Text(note, style="dim"))
    for trial in summary.trials:
        if trial.outcome not in AS_PLANNED:
            console.print(Text(outcome_line(trial.trial_id, trial.outcome, say(trial.message)), style="bold red"))
    budget = summary.study.budget
    if budget is not None and budget.stopped_trials:
        saved = f"Early exit stopped {budget.stopped_trials} trials: {budget.share:.0%} of the whole grid's tokens."
        console.print(Text(saved, style="dim"))
    console.print()
    console.print(Text(headline(summary), style="bold"))
    if summary.recommendation.use.rank is not None:
        console.print(_needs(summary))
    if say(summary.verdict.text) != headline(summary):
        console.print(Text(say(summary.verdict.text)))
    console.print(Text(say(summary.readings.naive.text), style="dim"))
    for caution in summary.cautions:
        grave = caution.kind == "adapter_differs"
        console.print(Text(f"- {say(caution.text)}", style="bold red" if grave else "dim"))
    console.print()
    # paths are copied, so they must not be broken into lines
    console.print(f"report:   {report}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"adapters: {folder / 'adapters'}", soft_wrap=True, highlight=False, markup=False)


def _needs(summary: StudySummary) -> Table:
    table = Table.grid(padding=(0, 2))
    for need in needs(summary):
        table.add_row(need.title, str(need.rank or NONE), need.reason, need.badge)
    return table


def _columns(summary: StudySummary) -> list[Column]:
    """Write the columns that have a value, and the held-out loss in any case."""
    written = {name: [column.cell(part) for part in summary.ranks] for name, column in rank_columns().items()}
    ends = [part.eval_loss_ci95 for part in summary.ranks]
    written["interval"] = [NONE if pair is None else f"{pair[0]:.4f}–{pair[1]:.4f}" for pair in ends]
    if len(summary.study.learning_rates) == 1:
        del written["best_learning_rate"]
    return [
        Column(heading=heading, cells=written[name], priority=priority)
        for name, (heading, priority) in COLUMNS.items()
        if name == "eval_loss" or {*written.get(name, ())} - {NONE}
    ]
