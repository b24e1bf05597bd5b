"""Tables of costs: memory while a rank trained alone, predictions and measurements."""

from lorascope.analysis.cost.predicted_schema import PredictedSection
from lorascope.analysis.summary import StudySummary
from lorascope.search.work import Activity, Overhead
from lorascope.text.language import tr
from lorascope.text.numbers import format_seconds
from lorascope.text.tables.table import Table, make_table, optional
from lorascope.units import format_bytes


def memory_table(summary: StudySummary) -> Table:
    """Show the readings of each rank's memory; no rows where none were taken."""
    known = [(part.rank, part.memory) for part in summary.ranks if part.memory is not None]
    return make_table(
        known,
        [rank for rank, _ in known],
        (tr("rank"), lambda row: str(row[0])),
        (tr("mean (MB)"), lambda row: f"{row[1].mean:,.1f}"),
        (tr("standard deviation (MB)"), lambda row: f"{row[1].std:,.1f}"),
        (tr("lowest (MB)"), lambda row: f"{row[1].min:,.1f}"),
        (tr("highest (MB)"), lambda row: f"{row[1].max:,.1f}"),
        note=tr("Memory while each rank trained alone, over all readings; 1 MB is 10^6 bytes."),
    )


def predicted_table(part: PredictedSection) -> Table:
    """Show predictions of every rank, of all together and of full fine-tuning, with what was measured."""
    others = [(tr("all together"), part.joint), (tr("full fine-tuning"), part.full_fine_tuning)]
    costs = [(str(cost.rank), cost) for cost in part.ranks] + [(name, cost) for name, cost in others if cost]
    return make_table(
        costs,
        [cost.rank for _, cost in costs],
        (tr("rank"), lambda row: row[0]),
        (tr("step, predicted"), lambda row: format_seconds(row[1].step_seconds.predicted)),
        (tr("measured"), lambda row: optional(row[1].step_seconds.measured, format_seconds)),
        (tr("error"), lambda row: optional(row[1].step_seconds.error, "{:+.1%}".format)),
        (tr("peak memory, predicted"), lambda row: format_bytes(row[1].peak_memory_bytes.predicted)),
        (tr("measured"), lambda row: optional(row[1].peak_memory_bytes.measured, format_bytes)),
        (tr("error"), lambda row: optional(row[1].peak_memory_bytes.error, "{:+.1%}".format)),
        note=_prediction_note(part),
    )


def time_table(summary: StudySummary) -> Table:
    """Show where the time went; no rows before it was counted."""
    names, book = _activity_names(), summary.time_book
    total = sum(one.spent_seconds for one in book)
    rows = [(names[one.name], one.predicted_seconds, one.spent_seconds) for one in book]
    rows += [(tr("all together"), None, total)] if rows else []
    return make_table(
        rows,
        [None] * len(rows),
        (tr("activity"), lambda row: row[0]),
        (tr("predicted"), lambda row: optional(row[1], format_seconds)),
        (tr("spent"), lambda row: format_seconds(row[2])),
        (tr("share"), lambda row: f"{row[2] / total:.0%}"),
        note=tr(
            "Over all starts of the study, the report left out. Each activity was predicted when its pace was first "
            "known: from the cost model, from what is most like it, or from its own first part."
        ),
    )


def _activity_names() -> dict[Activity | Overhead, str]:
    return {
        "preparation": tr("loading and checks"),
        "predictions": tr("prediction of costs"),
        "solo_runs": tr("solo runs"),
        "training": tr("training"),
        "evaluation": tr("held-out evaluations"),
        "looks": tr("looks at the data"),
        "further_rows": tr("further held-out rows"),
        "spectra": tr("singular values"),
        "forgetting_text": tr("loss on other text"),
        "truncation": tr("truncated adapters"),
        "samples": tr("texts of each rank"),
        "metrics": tr("answers for metrics"),
        "lm_eval": tr("benchmarks"),
        "proof": tr("check with PEFT"),
    }


def _prediction_note(part: PredictedSection) -> str:
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
