"""Result of a run for the terminal: the table of ranks, the recommendation, paths."""

from pathlib import Path

from rich.console import Console
from rich.text import Text

from lorascope.analysis import StudySummary
from lorascope.cli.columns import Column, make_table
from lorascope.cli.formatting import format_loss, outcome_line
from lorascope.records import AS_PLANNED
from lorascope.text.numbers import format_count, format_seconds
from lorascope.text.say import say
from lorascope.units import format_bytes


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
            console.print(Text(outcome_line(trial.trial_id, trial.outcome, trial.message), style="bold red"))
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
    # paths are copied, so they must not be broken into lines
    console.print(f"report:   {report}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"adapters: {folder / 'adapters'}", soft_wrap=True, highlight=False, markup=False)


def recommendation(summary: StudySummary) -> str:
    """State the recommended rank and the reason in one sentence, or why there is none."""
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
        Column(heading="scale", cells=["" if r.scale is None else f"{r.scale:.4g}" for r in ranks], priority=7),
        Column(heading="best rate", cells=["" if rate is None else f"{rate:g}" for rate in rates], priority=5),
        Column(heading="params", cells=["" if n is None else format_count(n) for n in counts], priority=3),
        Column(heading="held-out", cells=[format_loss(rank.eval_loss) for rank in ranks]),
        Column(
            heading="95 % interval",
            cells=["" if pair is None else f"{pair[0]:.4f}–{pair[1]:.4f}" for pair in intervals],
            priority=1,
        ),
        Column(heading="train", cells=[format_loss(rank.train_loss) for rank in ranks], priority=4),
        Column(heading="step", cells=[_seconds(rank.step_seconds) for rank in ranks], priority=6),
        Column(heading="runtime", cells=[_seconds(rank.runtime_seconds) for rank in ranks], priority=2),
        Column(heading="peak", cells=[_bytes(rank.peak_memory_bytes) for rank in ranks], priority=2),
    ]


def _seconds(value: float | None) -> str:
    return "" if value is None else format_seconds(value)


def _bytes(value: int | None) -> str:
    return "" if value is None else format_bytes(value)
