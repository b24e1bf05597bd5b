"""What a rank's adapter was used for, as the strings a page shows."""

from dataclasses import dataclass

from lorascope.analysis.adapters.schema import GenericTextSection, TruncationSection
from lorascope.analysis.section import Interval
from lorascope.analysis.summary import StudySummary
from lorascope.report.view import NONE, Table, row_colors, show_loss
from lorascope.spec.schema import BUILTIN_TEXT
from lorascope.text.language import tr
from lorascope.text.numbers import format_count


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A table with its title and what to know about it."""

    title: str
    table: Table
    note: str


def spectra_section(summary: StudySummary) -> Section | None:
    """Show how many directions each rank's update uses; None where no adapter was examined."""
    if not summary.spectra:
        return None
    rows = tuple(
        (
            str(part.rank),
            part.module,
            tr(
                "{mean} ({low} to {high})",
                mean=f"{part.effective_rank:.1f}",
                low=f"{part.effective_rank_min:.1f}",
                high=f"{part.effective_rank_max:.1f}",
            ),
            f"{part.energy_rank_50:.1f}",
            f"{part.energy_rank_90:.1f}",
            f"{part.energy_rank_99:.1f}",
        )
        for part in summary.spectra
    )
    return Section(
        title=tr("How much of each rank was used"),
        table=Table(
            header=(
                tr("rank"),
                tr("modules"),
                tr("effective rank (lowest to highest)"),
                tr("50% of energy"),
                "90%",
                "99%",
            ),
            rows=rows,
            colors=row_colors(summary, [part.rank for part in summary.spectra]),
        ),
        note=tr(
            "Means over layers. The effective rank counts directions by the entropy of their singular values; the "
            "last columns count the largest singular values that hold a share of the squared norm. A small direction "
            "may matter to the loss and a large one may not: cutting tells."
        ),
    )


def truncation_section(summary: StudySummary) -> Section | None:
    """Show what the largest rank's adapter is worth when cut; None where nothing was cut."""
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
    whole = (str(part.rank), show_loss(part.eval_loss), tr("the whole"), show_loss(part.eval_loss))
    return Section(
        title=tr("Rank {rank} cut to smaller ranks", rank=part.rank),
        table=Table(
            header=(
                tr("cut to"),
                tr("held-out loss"),
                tr("above the whole rank {rank} (95% interval)", rank=part.rank),
                tr("trained at that rank"),
            ),
            rows=(*rows, whole),
            colors=row_colors(summary, [part.rank] * (len(rows) + 1)),
        ),
        note=_truncation_note(summary, part),
    )


def forgetting_section(summary: StudySummary) -> Section | None:
    """Show each rank's losses on the generic text; None where none was read."""
    known = [(part.rank, part.forgetting) for part in summary.ranks if part.forgetting is not None]
    if not known or summary.generic_text is None:
        return None
    return Section(
        title=tr("What was forgotten"),
        table=Table(
            header=(tr("rank"), tr("before training"), tr("after"), tr("change (95% interval)")),
            rows=tuple(
                (str(rank), show_loss(part.before), show_loss(part.after), _difference(part.change, part.change_ci95))
                for rank, part in known
            ),
            colors=row_colors(summary, [rank for rank, _ in known]),
        ),
        note=_text_note(summary.generic_text),
    )


def _truncation_note(summary: StudySummary, part: TruncationSection) -> str:
    tolerance = f"{summary.study.tolerance:g}"
    if part.adequate_rank is None:
        return tr(
            "Each layer keeps its largest singular values; nothing is trained again. Any cut may cost more than the "
            "tolerance of {tolerance}.",
            tolerance=tolerance,
        )
    return tr(
        "Each layer keeps its largest singular values; nothing is trained again. Cut to rank {cut}, the adapter of "
        "rank {rank} loses at most the tolerance of {tolerance}: {command} writes it.",
        cut=part.adequate_rank,
        rank=part.rank,
        tolerance=tolerance,
        command=f"lorascope export DIR --rank {part.rank} --truncate {part.adequate_rank} --to PATH",
    )


def _text_note(text: GenericTextSection) -> str:
    builtin = tr("the prose of Python's language reference, which Python carries (PSF License)")
    return tr(
        "Loss on {text}: {tokens} tokens in {windows} windows. Above 0, the model predicts such text worse than "
        "before. The interval covers the choice of windows.",
        text=builtin if text.name == BUILTIN_TEXT else text.name,
        tokens=format_count(text.target_tokens),
        windows=text.windows,
    )


def _difference(value: float | None, interval: Interval | None) -> str:
    if value is None:
        return NONE
    if interval is None:
        return f"{value:+z.4f}"
    low, high = (f"{end:+z.4f}" for end in interval)
    return tr("{value} ({low} to {high})", value=f"{value:+z.4f}", low=low, high=high)
