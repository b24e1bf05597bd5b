"""Screen of an adapter's audit: what it is, the answer, a table of ranks, what else is known; at most 25 lines."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from lorascope.analysis.adapters.audit_schema import AdapterAudit, AuditAnswer
from lorascope.analysis.adapters.schema import CutSection, SpectrumSection
from lorascope.analysis.section import Interval
from lorascope.cli.columns import Column, make_table
from lorascope.text.numbers import difference, format_count
from lorascope.text.say import say
from lorascope.text.shown_rows import shown_text
from lorascope.text.tables.overview import short_name
from lorascope.text.tables.table import NONE, optional

_MOST_LINES = 25
_TABLE_LINES = 4
"""Lines of the table beside its cuts: headings, a rule, base and whole adapter."""
_LEAST_CUTS = 3
_ANSWER_LINES = 4
_LABEL = 12
_WORDS = {
    "enough": ("ENOUGH", "green"), "no_smaller": ("NOT SHOWN", "yellow"), "no_gain": ("NO GAIN", "red"),
    "too_few": ("TOO FEW", "yellow"), "rank_one": ("RANK 1", ""), "not_finite": ("NO LOSS", "red"),
}  # fmt: skip


def show_audit(console: Console, audit: AdapterAudit) -> None:
    """Print the audit."""
    head: list[RenderableType] = [_title(audit, console.width), Text(), _verdict(audit), Text()]
    foot: list[RenderableType] = [Text(), *_facts(audit), *_next(audit)]
    used = len(console.render_lines(Group(*head, *foot), pad=False))
    left = _MOST_LINES - used - _TABLE_LINES
    sample = _sample(audit.answers, console.width) if left - len(audit.cuts) >= _ANSWER_LINES else []
    table = _table(audit, _shown(audit, left), console.width)
    for part in (*head, table, *sample, *foot):
        # commands are copied, so they must not be broken into lines
        console.print(part, soft_wrap=isinstance(part, Text) and part.no_wrap is True, highlight=False)


def _title(audit: AdapterAudit, width: int) -> Text:
    title = Text(
        f"{short_name(audit.adapter)}: rank {audit.rank}, {format_count(audit.parameters)} parameters in "
        f"{audit.layers} layers of {short_name(audit.model)}"
    )
    title.truncate(width, overflow="ellipsis")
    return title


def _verdict(audit: AdapterAudit) -> Table:
    word, color = _WORDS[audit.verdict]
    grid = Table.grid(padding=0)
    grid.add_column(width=_LABEL, no_wrap=True)
    grid.add_column()
    grid.add_row(Text(word, style=f"bold {color}".strip()), Text(say(audit.text)))
    return grid


def _shown(audit: AdapterAudit, most: int) -> Sequence[CutSection]:
    """Choose cuts where there are too many: those next to the rank that is enough, or else the largest."""
    keep = max(most, _LEAST_CUTS)
    places = range(len(audit.cuts))
    at = next((place for place in places if audit.cuts[place].rank == audit.adequate_rank), places.stop)
    kept = sorted(sorted(places, key=lambda place: abs(place - at))[:keep])
    return [audit.cuts[place] for place in kept]


def _table(audit: AdapterAudit, cuts: Sequence[CutSection], width: int) -> Table:
    above = [_difference(cut.excess_loss, cut.excess_loss_ci95) for cut in cuts]
    against_whole = None if audit.change is None else -audit.change
    ci95 = None if audit.change_ci95 is None else (-audit.change_ci95[1], -audit.change_ci95[0])
    columns = [
        Column(heading="rank", cells=["base", *(str(cut.rank) for cut in cuts), f"{audit.rank} (whole)"]),
        Column(
            heading="held-out",
            cells=[_loss(audit.base_eval_loss), *(_loss(cut.eval_loss) for cut in cuts), _loss(audit.eval_loss)],
        ),
        Column(heading="above the whole (95 %)", cells=[_difference(against_whole, ci95), *above, NONE], left=True),
    ]
    enough = next((place for place, cut in enumerate(cuts, 1) if cut.rank == audit.adequate_rank), None)
    return make_table(columns, width, bold=enough)


def _loss(value: float | None) -> str:
    return optional(value, "{:.4f}".format)


def _difference(value: float | None, ci95: Interval | None) -> str:
    return NONE if value is None or ci95 is None else difference(value, *ci95)


def _facts(audit: AdapterAudit) -> Iterator[RenderableType]:
    rows, targets = f"{audit.eval_examples:,} held-out rows", format_count(audit.eval_target_tokens)
    yield _line("Rows", f"{rows} of {short_name(audit.dataset)}, {targets} target tokens")
    if audit.spectra:
        yield _line("Rank in use", _used(audit.spectra))
    if audit.forgetting is not None and audit.forgetting.change is not None:
        change = _difference(audit.forgetting.change, audit.forgetting.change_ci95)
        yield _line("Forgetting", f"{change} on unrelated text; above 0 is worse")
    if audit.notes:
        yield _line("Notes", f"{len(audit.notes)} on rows and base, with --json")


def _used(spectra: Sequence[SpectrumSection]) -> str:
    layers = sum(one.layers for one in spectra)
    effective = sum(one.layers * one.effective_rank for one in spectra) / layers
    energy = sum(one.layers * one.energy_rank_90 for one in spectra) / layers
    widest = max(spectra, key=lambda one: one.effective_rank)
    most = f"; most in {widest.module}, {widest.effective_rank:.1f}" if len(spectra) > 1 else ""
    return f"effective rank {effective:.1f}, 90 % of energy in {energy:.1f}{most}"


def _sample(answers: Sequence[AuditAnswer], width: int) -> list[Text]:
    """Return the first prompt whose answers differ, with these answers, a line each."""
    chosen = next((one for one in answers if one.base != one.adapter), None)
    if chosen is None:
        return []
    texts = (("Prompt", chosen.prompt[-3 * width :]), ("  base", chosen.base), ("  adapter", chosen.adapter))
    lines = [_line(label, " ".join(shown_text(text).split())) for label, text in texts]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return [Text(), *lines]


def _next(audit: AdapterAudit) -> Iterator[Text]:
    if audit.verdict == "enough":
        to = f"{Path(audit.adapter).name}-r{audit.adequate_rank}"  # here, not in the folder of a study
        command = ["lorascope", "audit", audit.adapter, "--truncate", str(audit.adequate_rank), "--to", to]
        yield _line("Truncate it", shlex.join(command))


def _line(title: str, text: str) -> Text:
    return Text.assemble((title.ljust(_LABEL), "bold"), text, no_wrap=True)
