"""What was predicted beside what was measured, as the strings a page shows."""

from lorascope.analysis.cost.predicted_schema import PredictedCostSection, PredictedSection, PredictedValueSection
from lorascope.analysis.summary import StudySummary
from lorascope.report.usage import Section
from lorascope.report.view import NONE, Table, row_colors
from lorascope.text.language import tr
from lorascope.text.numbers import format_seconds
from lorascope.units import format_bytes


def predicted_sections(summary: StudySummary) -> tuple[Section, ...]:
    """Show predictions of every rank, of all together and of full fine-tuning; nothing where none were made."""
    part = summary.predicted
    if part is None:
        return ()
    others = [(tr("all together"), part.joint), (tr("full fine-tuning"), part.full_fine_tuning)]
    named = [(str(cost.rank), cost) for cost in part.ranks] + [(name, cost) for name, cost in others if cost]
    colors = row_colors(summary, [cost.rank for cost in part.ranks if cost.rank is not None])
    table = Table(
        header=(
            tr("rank"),
            tr("step, predicted"),
            tr("measured"),
            tr("error"),
            tr("peak memory, predicted"),
            tr("measured"),
            tr("error"),
        ),
        rows=tuple((name, *_cells(cost)) for name, cost in named),
        colors=colors + ("transparent",) * (len(named) - len(colors)),
    )
    return (Section(title=tr("Predicted and measured"), table=table, note=_note(part)),)


def _cells(cost: PredictedCostSection) -> tuple[str, ...]:
    time, memory = cost.step_seconds, cost.peak_memory_bytes
    return (
        format_seconds(time.predicted),
        NONE if time.measured is None else format_seconds(time.measured),
        _error(time),
        format_bytes(memory.predicted),
        NONE if memory.measured is None else format_bytes(memory.measured),
        _error(memory),
    )


def _error(value: PredictedValueSection) -> str:
    return NONE if value.error is None else f"{value.error:+.1%}"


def _note(part: PredictedSection) -> str:
    known = (
        tr("No study on this device had corrected times before.")
        if part.factor == 1
        else tr("An earlier study on this device corrected times by {factor}.", factor=f"{part.factor:.2f}")
    )
    if part.ratio_error is None:
        return known
    ratio = tr(
        "Ratios of the ranks' step times are off by at most {points} percentage points.",
        points=f"{abs(part.ratio_error):.1%}".rstrip("%"),
    )
    return f"{known} {ratio}"
