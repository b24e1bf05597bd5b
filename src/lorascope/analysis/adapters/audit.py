"""Audit of one adapter: how much of its rank its losses and singular values show to be used."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lorascope.analysis.adapters.audit_schema import AdapterAudit, AuditAnswer, AuditVerdict
from lorascope.analysis.adapters.schema import CutSection
from lorascope.analysis.adapters.usage import (
    adequate_rank,
    as_rows,
    compare_cuts,
    differences_from_first,
    forgetting_change,
    generic_text,
    spectra_by_kind,
)
from lorascope.analysis.section import Interval
from lorascope.analysis.verdict.decide import LEAST
from lorascope.message import Message, Sentences
from lorascope.records import BASE_MODEL, ForgettingRecord, SampleAnswer, SamplePrompt, SpectrumRecord

_Estimate = tuple[float, float, float]
ADAPTER = "adapter"
"""Stands for the adapter where records name a trial."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AuditRecords:
    """Measurements of one adapter."""

    adapter: str
    model: str
    dataset: str
    rank: int
    layers: int
    parameters: int
    tolerance: float
    target_tokens: tuple[int, ...]
    """Of each held-out row."""
    nats: Mapping[int, tuple[float, ...]]
    """Of each held-out row by the rank that the adapter was truncated to; 0 is the base, and its rank the whole."""
    spectra: Sequence[SpectrumRecord]
    forgetting: Mapping[str, ForgettingRecord]
    """Of ``BASE_MODEL`` and ``ADAPTER``; empty where no text was read."""
    prompts: Sequence[SamplePrompt]
    answers: Sequence[SampleAnswer]
    notes: Sentences


def summarize_audit(found: AuditRecords) -> AdapterAudit:
    """Turn what was measured into the audit."""
    rows = {rank: as_rows(nats, found.target_tokens) for rank, nats in found.nats.items()}
    base, whole = rows[0], rows[found.rank]
    finite = bool(np.isfinite(whole.nats).all())
    smaller = {rank: rows[rank] for rank in sorted(rows) if 0 < rank < found.rank}
    cuts = compare_cuts(whole, smaller, {}) if finite else ()
    change_ci95 = differences_from_first([base, whole])[0] if finite else None
    enough = adequate_rank(cuts, found.tolerance)
    verdict = _verdict(found, enough, change_ci95, finite=finite)
    change = whole.loss - base.loss if finite else None
    change_interval = None if change is None or change_ci95 is None else (change, *change_ci95)
    return AdapterAudit(
        adapter=found.adapter,
        model=found.model,
        dataset=found.dataset,
        rank=found.rank,
        layers=found.layers,
        parameters=found.parameters,
        eval_examples=len(found.target_tokens),
        eval_target_tokens=sum(found.target_tokens),
        tolerance=found.tolerance,
        base_eval_loss=base.loss,
        eval_loss=whole.loss if finite else None,
        change=change,
        change_ci95=change_ci95,
        verdict=verdict,
        text=tuple(
            _text(
                verdict,
                tolerance=found.tolerance,
                rows=len(found.target_tokens),
                cuts=cuts,
                enough=enough,
                change=change_interval,
            )
        ),
        adequate_rank=enough,
        cuts=cuts,
        spectra=spectra_by_kind(found.rank, found.spectra),
        forgetting=forgetting_change(*(found.forgetting[name] for name in (BASE_MODEL, ADAPTER)))
        if found.forgetting
        else None,
        generic_text=generic_text(found.forgetting[BASE_MODEL]) if found.forgetting else None,
        answers=tuple(_answers(found)),
        notes=found.notes,
    )


def _verdict(found: AuditRecords, enough: int | None, change_ci95: Interval | None, *, finite: bool) -> AuditVerdict:
    if not finite:
        return "not_finite"
    if len(found.target_tokens) < LEAST:
        return "too_few"
    if change_ci95 is None or change_ci95[1] >= 0:
        return "no_gain"
    if -change_ci95[0] <= found.tolerance:  # the base alone would be enough
        return "small_gain"
    if found.rank == 1:
        return "rank_one"
    return "no_smaller" if enough is None else "enough"


def _text(
    verdict: AuditVerdict,
    *,
    tolerance: float,
    rows: int,
    cuts: Sequence[CutSection],
    enough: int | None,
    change: _Estimate | None,
) -> Iterator[Message]:
    match verdict:
        case "enough":
            excess = next(_estimate(cut) for cut in cuts if cut.rank == enough)
            yield Message("audit.enough", rank=enough, excess=excess, tolerance=tolerance)
            yield Message("audit.one_run", rank=enough)
        case "no_smaller":
            yield Message("audit.no_smaller", tolerance=tolerance)
            largest = next((cut for cut in reversed(cuts) if _estimate(cut) is not None), None)
            if largest is not None:
                yield Message("audit.largest_cut", rank=largest.rank, excess=_estimate(largest))
        case "no_gain":
            yield Message("audit.no_gain", change=change)
        case "small_gain":
            yield Message("audit.small_gain", change=change, tolerance=tolerance)
        case "too_few":
            yield Message("audit.too_few", rows=rows, least=LEAST)
        case "rank_one":
            yield Message("audit.rank_one")
        case "not_finite":
            yield Message("audit.not_finite")


def _estimate(cut: CutSection) -> _Estimate | None:
    """Return a cut's excess with its interval; None where it is not finite."""
    if cut.excess_loss is None or cut.excess_loss_ci95 is None:
        return None
    return (cut.excess_loss, *cut.excess_loss_ci95)


def _answers(found: AuditRecords) -> Iterator[AuditAnswer]:
    texts = {(one.place, one.trial_id): one.text for one in found.answers if one.error is None}
    for prompt in found.prompts:
        if (prompt.place, ADAPTER) in texts:
            yield AuditAnswer(
                row=prompt.row,
                prompt=prompt.prompt,
                truth=prompt.truth,
                base=texts[prompt.place, BASE_MODEL],
                adapter=texts[prompt.place, ADAPTER],
            )
