"""Tables of trained adapters: spectra, truncation, forgetting."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from lorascope.analysis.adapters.schema import GenericTextSection, SpectrumSection, TruncationSection
from lorascope.analysis.summary import StudySummary
from lorascope.spec.fields.answer import BUILTIN_TEXT
from lorascope.text.language import tr
from lorascope.text.numbers import format_count
from lorascope.text.tables.table import Table, interval_cell, loss_cell, make_table

_signed: Callable[[float], str] = "{:+z.4f}".format


def spectra_table(spectra: Sequence[SpectrumSection]) -> Table:
    """Show how many directions each rank's update uses."""
    return make_table(
        spectra,
        [part.rank for part in spectra],
        (tr("rank"), lambda part: str(part.rank)),
        (tr("modules"), lambda part: part.module),
        (tr("effective rank (lowest to highest)"), _effective_rank),
        (tr("50% of energy"), lambda part: f"{part.energy_rank_50:.1f}"),
        ("90%", lambda part: f"{part.energy_rank_90:.1f}"),
        ("99%", lambda part: f"{part.energy_rank_99:.1f}"),
        note=tr(
            "Means over layers. The effective rank counts directions by the entropy of their singular values; the "
            "last columns count the largest singular values that hold a share of the squared norm. A small direction "
            "may matter to the loss and a large one may not: cutting tells."
        ),
    )


def _effective_rank(part: SpectrumSection) -> str:
    return tr(
        "{mean} ({low} to {high})",
        mean=f"{part.effective_rank:.1f}",
        low=f"{part.effective_rank_min:.1f}",
        high=f"{part.effective_rank_max:.1f}",
    )


def truncation_table(part: TruncationSection, tolerance: float) -> Table:
    """Show what the largest rank's adapter is worth when truncated."""
    table = make_table(
        part.cuts,
        [part.rank] * (len(part.cuts) + 1),
        (tr("cut to"), lambda cut: str(cut.rank)),
        (tr("held-out loss"), lambda cut: loss_cell(cut.eval_loss)),
        (
            tr("above the whole rank {rank} (95% interval)", rank=part.rank),
            lambda cut: interval_cell(cut.excess_loss, cut.excess_loss_ci95, _signed),
        ),
        (tr("trained at that rank"), lambda cut: loss_cell(cut.trained_eval_loss)),
        note=_truncation_note(part, f"{tolerance:g}"),
    )
    whole = (str(part.rank), loss_cell(part.eval_loss), tr("the whole"), loss_cell(part.eval_loss))
    return replace(table, rows=(*table.rows, whole))


def _truncation_note(part: TruncationSection, tolerance: str) -> str:
    if part.adequate_rank is None:
        return tr(
            "Each layer keeps its largest singular values; nothing is trained again. Any cut may cost more than the "
            "tolerance of {tolerance}.",
            tolerance=tolerance,
        )
    return tr(
        "Each layer keeps its largest singular values; nothing is trained again. Truncated to rank {cut}, the adapter "
        "of rank {rank} loses at most the tolerance of {tolerance}.",
        cut=part.adequate_rank,
        rank=part.rank,
        tolerance=tolerance,
    )


def forgetting_table(summary: StudySummary, text: GenericTextSection) -> Table:
    """Show each rank's losses on the generic text."""
    known = [(part.rank, part.forgetting) for part in summary.ranks if part.forgetting is not None]
    builtin = tr("the prose of Python's language reference, which Python carries (PSF License)")
    return make_table(
        known,
        [rank for rank, _ in known],
        (tr("rank"), lambda row: str(row[0])),
        (tr("before training"), lambda row: loss_cell(row[1].before)),
        (tr("after"), lambda row: loss_cell(row[1].after)),
        (tr("change (95% interval)"), lambda row: interval_cell(row[1].change, row[1].change_ci95, _signed)),
        note=tr(
            "Loss on {text}: {tokens} tokens in {windows} windows. Above 0, the model predicts such text worse than "
            "before. The interval covers the choice of windows.",
            text=builtin if text.name == BUILTIN_TEXT else text.name,
            tokens=format_count(text.target_tokens),
            windows=text.windows,
        ),
    )
