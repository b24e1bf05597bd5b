"""Tables that a report shows first: the base and the ranks with what decides between them, and the ranks' costs."""

from dataclasses import replace
from pathlib import Path

from lorascope.analysis.summary import RankSection, StudySummary
from lorascope.text.language import tr
from lorascope.text.looks import over_looks
from lorascope.text.metrics import metric_label
from lorascope.text.numbers import format_count, format_seconds
from lorascope.text.tables.ranks import excess_with_interval, rank_columns
from lorascope.text.tables.table import NONE, Table, drop_empty, make_table, optional
from lorascope.units import format_bytes

EXCESS_COLUMN = 2
"""Place of the difference to the best rank, which a page draws."""


def overview_table(summary: StudySummary) -> Table:
    """Show the base model and every rank at its best learning rate; columns without any value are left out."""
    mark = unsteady_mark(summary)
    columns = rank_columns()
    settings = [columns["lora_alpha"]] + [columns["best_learning_rate"]] * (len(summary.study.learning_rates) > 1)
    table = make_table(
        summary.ranks,
        [part.rank for part in summary.ranks],
        (tr("rank"), lambda part: str(part.rank)),
        (metric_label("eval_loss"), lambda part: optional(part.eval_loss, "{:.3f}".format)),
        (tr("vs best (95%)"), excess_with_interval),
        *((column.heading, column.cell) for column in settings),
        (tr("parameters"), lambda part: optional(part.trainable_parameters, format_count)),
        (tr("adapter"), lambda part: optional(part.adapter_bytes, format_bytes)),
        (tr("step"), lambda part: optional(part.step_seconds, lambda seconds: format_seconds(seconds) + mark)),
        (tr("peak memory"), lambda part: optional(part.peak_memory_bytes, format_bytes)),
    )
    first = (tr("base"), optional(summary.base_eval_loss, "{:.3f}".format), *[NONE] * (len(table.header) - 2))
    table = replace(table, rows=(first, *table.rows), ranks=(None, *table.ranks))
    return replace(drop_empty(table), style="overview", note=_overview_note(summary))


def _overview_note(summary: StudySummary) -> str:
    seeds, examples = summary.verdict.seeds, summary.compared_rows
    parts = [tr("Losses in nats per token.")]
    if examples is not None:
        parts = [tr("Losses in nats per token on {count} held-out examples.", count=format_count(examples))]
    if seeds > 1:
        parts.append(tr("Mean of {seeds} seeds; intervals over examples and seeds.", seeds=seeds))
    elif seeds == 1:
        parts.append(tr("One seed; intervals over examples only."))
    if summary.looks:
        parts.append(over_looks(summary))
    if any(part.step_seconds is not None for part in summary.ranks):
        parts.append(tr("Step and memory of each rank trained by itself."))
    if unsteady_mark(summary):
        parts.append(tr("? Times are unreliable: the machine was busy or changed its pace."))
    return " ".join(parts)


def unsteady_mark(summary: StudySummary) -> str:
    """Return the mark of times that cannot be compared; empty where they can."""
    return "?" if any(caution.kind == "unsteady_steps" for caution in summary.cautions) else ""


def cost_table(summary: StudySummary) -> Table:
    """Show what each rank takes, trained by itself; columns without any value are left out."""
    mark = unsteady_mark(summary)

    def timed(seconds: float | None) -> str:
        return optional(seconds, lambda value: format_seconds(value) + mark)

    table = make_table(
        summary.ranks,
        [part.rank for part in summary.ranks],
        (tr("rank"), lambda part: str(part.rank)),
        (tr("share of the base's parameters"), lambda part: _share(summary, part)),
        (tr("adapter, gradient and optimizer"), lambda part: optional(part.training_state_bytes, format_bytes)),
        (tr("peak memory"), lambda part: optional(part.peak_memory_bytes, format_bytes)),
        (tr("step"), lambda part: timed(part.step_seconds)),
        (tr("whole run"), lambda part: timed(part.runtime_seconds)),
        (tr("tokens/s"), lambda part: optional(part.tokens_per_second, lambda value: f"{value:,.0f}{mark}")),
        note=tr("Each rank trained by itself. The whole run is the number of steps times the median step."),
    )
    measured = [part for part in summary.ranks if part.peak_memory_bytes is not None or part.step_seconds is not None]
    return drop_empty(table) if measured else replace(table, rows=(), ranks=())


def _share(summary: StudySummary, part: RankSection) -> str:
    base = summary.study.base_parameters
    if part.trainable_parameters is None or not base:
        return NONE
    return f"{part.trainable_parameters / base:.2%}"


def csv_rows(summary: StudySummary) -> list[list[str]]:
    """Return the numbers of every run as rows of a CSV file, unrounded, with the fields of summary.json as header."""
    names = ("trial_id", "rank", "lora_alpha", "learning_rate", "seed", "outcome", "steps", "train_loss", "eval_loss",
             "eval_step", "base_eval_loss")  # fmt: skip
    cells = [[getattr(trial, name) for name in names] for trial in summary.trials]
    return [list(names), *(["" if cell is None else str(cell) for cell in row] for row in cells)]


def title_of_study(summary: StudySummary) -> str:
    """Name the study by the last parts of its model and rows."""
    return tr("{model} on {dataset}", model=short_name(summary.study.model), dataset=short_name(summary.study.dataset))


def short_name(source: str) -> str:
    """Return the last part of a model's or data set's name."""
    return " + ".join(Path(part.removeprefix("builtin:")).name for part in source.split(" + "))
