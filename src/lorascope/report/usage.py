"""What a rank's adapter was used for, as the strings a page shows."""

from dataclasses import dataclass

from lorascope.analysis.part import Interval
from lorascope.analysis.summary import StudySummary
from lorascope.analysis.usage_parts import GenericTextPart, TruncationPart
from lorascope.report.view import NONE, Table, row_colors, show_loss
from lorascope.spec.schema import BUILTIN_TEXT
from lorascope.units import format_count


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A table with its title and what to know about it."""

    title: str
    table: Table
    note: str


def usage_sections(summary: StudySummary) -> tuple[Section, ...]:
    """Show what was examined after training; nothing where nothing was."""
    sections = (_spectra(summary), _truncation(summary), _forgetting(summary))
    return tuple(section for section in sections if section is not None)


def _spectra(summary: StudySummary) -> Section | None:
    if not summary.spectra:
        return None
    rows = tuple(
        (
            str(part.rank),
            part.module,
            f"{part.effective_rank:.1f} ({part.effective_rank_min:.1f} to {part.effective_rank_max:.1f})",
            f"{part.energy_rank_50:.1f}",
            f"{part.energy_rank_90:.1f}",
            f"{part.energy_rank_99:.1f}",
        )
        for part in summary.spectra
    )
    return Section(
        title="How much of each rank was used",
        table=Table(
            header=("rank", "modules", "effective rank (lowest to highest)", "50% of energy", "90%", "99%"),
            rows=rows,
            colors=row_colors(summary, [part.rank for part in summary.spectra]),
        ),
        note="Means over layers. The effective rank counts directions by the entropy of their singular values; the "
        "last columns count the largest singular values that hold a share of the squared norm. A small direction may "
        "matter to the loss and a large one may not: cutting tells.",
    )


def _truncation(summary: StudySummary) -> Section | None:
    part = summary.truncation
    if part is None:
        return None
    rows = tuple(
        (
            str(cut.rank),
            show_loss(cut.eval_loss),
            _difference(cut.excess_loss, cut.excess_loss_ci95),
            show_loss(cut.trained_eval_loss),
        )
        for cut in part.cuts
    )
    return Section(
        title=f"Rank {part.rank} cut to smaller ranks",
        table=Table(
            header=(
                "cut to",
                "held-out loss",
                f"above the whole rank {part.rank} (95% interval)",
                "trained at that rank",
            ),
            rows=(*rows, (str(part.rank), show_loss(part.eval_loss), "the whole", show_loss(part.eval_loss))),
            colors=row_colors(summary, [part.rank] * (len(rows) + 1)),
        ),
        note=_truncation_note(summary, part),
    )


def _truncation_note(summary: StudySummary, part: TruncationPart) -> str:
    kept = "Each layer keeps its largest singular values; nothing is trained again."
    tolerance = f"the tolerance of {summary.study.tolerance:g}"
    if part.adequate_rank is None:
        return f"{kept} Any cut may cost more than {tolerance}."
    return (
        f"{kept} Cut to rank {part.adequate_rank}, the adapter of rank {part.rank} loses at most {tolerance}: "
        f"lorascope export DIR --rank {part.rank} --truncate {part.adequate_rank} --to PATH writes it."
    )


def _forgetting(summary: StudySummary) -> Section | None:
    known = [(part.rank, part.forgetting) for part in summary.ranks if part.forgetting is not None]
    if not known or summary.generic_text is None:
        return None
    return Section(
        title="What was forgotten",
        table=Table(
            header=("rank", "before training", "after", "change (95% interval)"),
            rows=tuple(
                (str(rank), show_loss(part.before), show_loss(part.after), _difference(part.change, part.change_ci95))
                for rank, part in known
            ),
            colors=row_colors(summary, [rank for rank, _ in known]),
        ),
        note=_text_note(summary.generic_text),
    )


def _text_note(text: GenericTextPart) -> str:
    name = "the prose of Python's language reference, which Python carries (PSF License)"
    name = name if text.name == BUILTIN_TEXT else text.name
    return (
        f"Loss on {name}: {format_count(text.target_tokens)} tokens in {text.windows} windows. Above 0, the model "
        "predicts such text worse than before. The interval covers the choice of windows."
    )


def _difference(value: float | None, interval: Interval | None) -> str:
    if value is None:
        return NONE
    return f"{value:+.4f}" + (f" ({interval[0]:+.4f} to {interval[1]:+.4f})" if interval else "")
