"""The end of a run: ranks side by side, the recommendation, and where everything is."""

from pathlib import Path

from rich.console import Console
from rich.text import Text

from lorascope.analysis import StudySummary
from lorascope.cli.columns import Column, table
from lorascope.cli.wording import ending, loss
from lorascope.text.numbers import format_count, format_seconds
from lorascope.text.say import say
from lorascope.units import format_bytes


def show_result(console: Console, summary: StudySummary, folder: Path, report: Path) -> None:
    """Print the result of a study."""
    console.print()
    console.print(table(_columns(summary), console.width))
    seeds = max(rank.seeds for rank in summary.ranks)
    over = f"rows and {seeds} seeds" if seeds > 1 else "rows, one seed"
    note = (
        f"Losses in nats a token, intervals over held-out {over}. Step and peak memory of each rank alone; "
        "runtime: steps x step."
    )
    console.print(Text(note, style="dim"))
    for trial in summary.trials:
        if trial.outcome not in ("finished", "stopped"):
            console.print(Text(ending(trial.trial_id, trial.outcome, trial.message), style="bold red"))
    budget = summary.study.budget
    if budget is not None and budget.stopped_trials:
        saved = f"Early exit stopped {budget.stopped_trials} trials: {budget.share:.0%} of the whole grid's tokens."
        console.print(Text(saved, style="dim"))
    console.print()
    console.print(Text(recommendation(summary), style="bold"))
    console.print(Text(say(summary.verdict.text)))
    console.print(Text(summary.readings.naive.text, style="dim"))
    for caution in summary.cautions:
        console.print(Text(f"- {caution.text}", style="dim"))
    console.print()
    # Paths are for copying: they must not be broken into lines.
    console.print(f"report:   {report}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"adapters: {folder / 'adapters'}", soft_wrap=True, highlight=False, markup=False)


def recommendation(summary: StudySummary) -> str:
    """Write the recommendation in one sentence: the rank and why, or what the data does not support."""
    advice = summary.recommendation.efficient
    if advice.rank is None:
        return advice.reason
    if summary.study.limited:
        advice = summary.recommendation.constrained
    head = "Not settled yet; until it is, use" if summary.verdict.kind == "too_short" else "Use"
    return f"{head} rank {advice.rank}: {advice.reason}."


def _columns(summary: StudySummary) -> list[Column]:
    ranks = summary.ranks
    several_rates = len(summary.study.learning_rates) > 1
    rates = [rank.best_learning_rate if several_rates else None for rank in ranks]
    intervals = [rank.eval_loss_ci95 for rank in ranks]
    counts = [rank.trainable_parameters for rank in ranks]
    return [
        Column(heading="rank", cells=[str(rank.rank) for rank in ranks]),
        Column(heading="scale", cells=["" if r.scale is None else f"{r.scale:.4g}" for r in ranks], rank=7),
        Column(heading="best rate", cells=["" if rate is None else f"{rate:g}" for rate in rates], rank=5),
        Column(heading="params", cells=["" if n is None else format_count(n) for n in counts], rank=3),
        Column(heading="held-out", cells=[loss(rank.eval_loss) for rank in ranks]),
        Column(
            heading="95 % interval",
            cells=["" if pair is None else f"{pair[0]:.4f}–{pair[1]:.4f}" for pair in intervals],
            rank=1,
        ),
        Column(heading="train", cells=[loss(rank.train_loss) for rank in ranks], rank=4),
        Column(heading="step", cells=[_seconds(rank.step_seconds) for rank in ranks], rank=6),
        Column(heading="runtime", cells=[_seconds(rank.runtime_seconds) for rank in ranks], rank=2),
        Column(heading="peak", cells=[_bytes(rank.peak_memory_bytes) for rank in ranks], rank=2),
    ]


def _seconds(value: float | None) -> str:
    return "" if value is None else format_seconds(value)


def _bytes(value: int | None) -> str:
    return "" if value is None else format_bytes(value)
