"""Notes behind the final screen: verdict, tests, caveats and changes to the rows, in sentences."""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from lorascope.analysis import StudySummary
from lorascope.text.looks import describe_look
from lorascope.text.say import say
from lorascope.text.tables.advice import needs


def show_notes(console: Console, summary: StudySummary) -> None:
    """Print what report.md says in words, by subject."""
    for title, lines in _sections(summary):
        shown = [line for line in lines if line]
        if shown:
            console.print(Text(title, style="bold"))
            for line in shown:
                console.print(Text(f"- {line}"), highlight=False)
            console.print()


def _sections(summary: StudySummary) -> Iterator[tuple[str, Sequence[str]]]:
    yield "Verdict", [say(summary.verdict.text), say(summary.recommendation.use.change)]
    yield "Looks", [describe_look(look) for look in summary.looks]
    yield (
        "Needs",
        [f"{need.title}: rank {need.rank}, {need.reason}" for need in needs(summary) if need.rank is not None],
    )
    yield "Metrics", [say(section.text) for section in summary.metrics]
    yield "Caveats", [say(caution.text) for caution in summary.cautions]
    yield "Training loss only", [say(summary.readings.naive.text)]
    yield "Alpha and scale", [say(summary.readings.alpha)]
    yield "Return on rank", [say(summary.readings.knee_text), say(summary.readings.balance)]
    yield "Early stopping", _early_stopping(summary)
    yield (
        "Cost",
        [say(text) for text in summary.costs.readings.texts] if summary.costs and summary.costs.readings else [],
    )
    yield "Data", [say(note) for note in summary.study.data_notes]


def _early_stopping(summary: StudySummary) -> list[str]:
    budget = summary.study.budget
    if budget is None or not budget.stopped_trials:
        return []
    ended = f"Early stopping ended {budget.stopped_trials} of {len(summary.trials)} runs"
    return [f"{ended} and saved {1 - budget.share:.0%} of the compute."]
