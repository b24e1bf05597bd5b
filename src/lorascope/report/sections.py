"""The report's evidence in the order it is read, the same in the page and in Markdown."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from lorascope.analysis import StudySummary
from lorascope.report.costs_view import cost_points, memory_table
from lorascope.report.predicted import predicted_sections
from lorascope.report.readings_view import doubling_table, grid_table, order_lines, reading_table
from lorascope.report.usage import Section, forgetting_section, spectra_section, truncation_section
from lorascope.report.view import Table, claims_table, trial_table
from lorascope.text.language import tr

GPU_CHARTS = ("gpu_memory", "gpu_memory_access", "gpu_utilization")


@dataclass(frozen=True, kw_only=True, slots=True)
class Charts:
    """Charts side by side, by their names; those that had nothing to show are left out."""

    kind: ClassVar = "charts"
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """A table."""

    kind: ClassVar = "table"
    table: Table


@dataclass(frozen=True, kw_only=True, slots=True)
class Words:
    """A paragraph, or a list with a line for each point."""

    kind: ClassVar = "words"
    text: str
    points: tuple[str, ...] = ()
    note: bool = True
    """False for a finding, True for what explains a table."""


Block = Charts | Grid | Words


@dataclass(frozen=True, kw_only=True, slots=True)
class Chapter:
    """A heading and what stands below it."""

    title: str
    blocks: tuple[Block, ...]


def chapters(summary: StudySummary, drawn: Mapping[str, object]) -> tuple[Chapter, ...]:
    """Arrange tables, words and the charts that were drawn; a chapter without anything to show is left out."""
    made = (
        _claims(summary),
        _chapter(tr("How the loss fell"), [_charts(drawn, "train_loss", "eval_loss")]),
        _rates(summary, drawn),
        _larger(summary, drawn),
        _section(truncation_section(summary), [_charts(drawn, "truncated_loss")]),
        _section(spectra_section(summary), [_charts(drawn, "effective_rank")]),
        _costs(summary, drawn),
        *(
            _section(section, [_charts(drawn, "predicted_step", "predicted_memory")])
            for section in predicted_sections(summary)
        ),
        _trade_offs(summary, drawn),
        _section(forgetting_section(summary), [_charts(drawn, "forgetting")]),
        _readings(summary),
        _trials(summary),
    )
    return tuple(chapter for chapter in made if chapter.blocks)


def _claims(summary: StudySummary) -> Chapter:
    note = tr("p-values are corrected for the number of ranks; at most 0.05 counts as shown.")
    if summary.verdict.seeds == 1:
        note = f"{note} {tr('With one seed, in that seed only.')}"
    return _chapter(tr("What is shown of each rank"), _table(claims_table(summary), note))


def _rates(summary: StudySummary, drawn: Mapping[str, object]) -> Chapter:
    blocks: list[Block | None] = []
    orders = tuple(order_lines(summary))
    if orders:
        blocks.append(Words(text=tr("Ranks, lowest loss first:"), points=orders))
    blocks.append(_charts(drawn, "eval_loss_by_rate", "eval_loss_map"))
    grid = grid_table(summary)
    if len(grid.header) > 2:
        blocks += [Words(text=tr("Held-out loss by learning rate; mean over seeds:")), Grid(table=grid)]
    if summary.readings.alpha:
        text = tr("What the alpha rule does: {text}", text=summary.readings.alpha)
        blocks.append(Words(text=text, note=False))
    return _chapter(tr("What the usual script would conclude"), blocks)


def _larger(summary: StudySummary, drawn: Mapping[str, object]) -> Chapter:
    blocks: list[Block | None] = [_charts(drawn, "excess_loss_by_rank", "eval_loss_by_rank", "gain_per_doubling")]
    doublings = doubling_table(summary)
    if doublings.rows:
        blocks += [Grid(table=doublings), Words(text=summary.readings.knee_text, note=False)]
    return _chapter(tr("What a larger rank gains"), blocks)


def _costs(summary: StudySummary, drawn: Mapping[str, object]) -> Chapter:
    note = tr("Memory while each rank trained alone, over all readings; 1 MB is 10^6 bytes.")
    points = cost_points(summary.costs)
    blocks = [
        Words(text=tr("What the measurements say:"), points=points) if points else None,
        _charts(drawn, "runtime", "memory_split", "memory_alone", "memory_over_time", *GPU_CHARTS),
        *_table(memory_table(summary), note),
    ]
    return _chapter(tr("What each rank costs"), blocks)


def _trade_offs(summary: StudySummary, drawn: Mapping[str, object]) -> Chapter:
    charts = _charts(drawn, "loss_against_time", "loss_against_memory", "eval_loss_by_time")
    words = Words(text=summary.readings.balance, note=False) if summary.readings.balance else None
    return _chapter(tr("What LoRA gained and cost here"), [charts, words])


def _readings(summary: StudySummary) -> Chapter:
    note = tr(
        "Losses are in nats a token. A training loss is stable from the step on where its average stays within "
        "{zone}% of its final level. The Pareto set takes held-out loss, time of a step and peak memory as they were "
        "estimated.",
        zone=f"{100 * summary.study.convergence_band:g}",
    )
    return _chapter(tr("What the curves and sizes say"), _table(reading_table(summary), note))


def _trials(summary: StudySummary) -> Chapter:
    plain = all(trial.outcome == "finished" for trial in summary.trials)
    if plain and len(summary.trials) <= len(summary.ranks):
        return _chapter("", [])
    return _chapter(tr("The trials"), _table(trial_table(summary)))


def _section(section: Section | None, before: Iterable[Block | None]) -> Chapter:
    if section is None:
        return _chapter("", [])
    return _chapter(section.title, [*before, *_table(section.table, section.note)])


def _table(table: Table, note: str = "") -> list[Block | None]:
    if not table.rows:
        return []
    return [Grid(table=table), Words(text=note) if note else None]


def _charts(drawn: Mapping[str, object], *names: str) -> Charts | None:
    found = tuple(name for name in names if name in drawn)
    return Charts(names=found) if found else None


def _chapter(title: str, blocks: Iterable[Block | None]) -> Chapter:
    return Chapter(title=title, blocks=tuple(block for block in blocks if block is not None))
