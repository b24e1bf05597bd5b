"""Adapter analyses: use of each rank, loss of the largest adapter when truncated, and forgetting.

Shapes: L layers, K singular values of a layer, descending.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from lorascope.analysis.adapters.schema import (
    CutSection,
    ForgettingSection,
    GenericTextSection,
    SpectrumSection,
    TruncationSection,
)
from lorascope.analysis.estimates.losses import Floats
from lorascope.analysis.estimates.paired import SeedRows, differences
from lorascope.analysis.section import Interval
from lorascope.analysis.study_data import StudyData
from lorascope.analysis.summary import RankSection, TrialSection
from lorascope.records import BASE_MODEL, ForgettingRecord, SpectrumRecord
from lorascope.search.best import last_finite, representative_trials
from lorascope.spec.fields.lora import split_expert


def effective_rank(singular_values: Sequence[float]) -> float:
    """Return exp(H) of the singular values' shares, H Shannon's entropy; 0 where nothing was learned.

    Between 1, one direction does all, and K, all do the same. Roy and Vetterli, The effective rank: a measure of
    effective dimensionality (EUSIPCO 2007), definition 1.
    """
    values_K: Floats = np.array(singular_values, dtype=np.float64)
    total = float(values_K.sum())
    if total == 0:
        return 0.0
    shares = values_K[values_K > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))


def energy_rank(singular_values: Sequence[float], share: float) -> int:
    """Count the largest singular values that hold a share of the sum of squares, the squared Frobenius norm."""
    energy_K: Floats = np.cumsum(np.array(singular_values, dtype=np.float64) ** 2)
    if not len(energy_K) or energy_K[-1] == 0:
        return 0
    return int(np.searchsorted(energy_K, share * energy_K[-1])) + 1


def module_kind(layer: str) -> str:
    """Return the last part of a layer's name, such as ``q_proj``."""
    return split_expert(layer)[0].rpartition(".")[2]


def examined_trials(
    data: StudyData, ranks: Sequence[RankSection], trials: Sequence[TrialSection]
) -> dict[int, TrialSection]:
    """Return the trial of each rank whose adapter was analysed, by rank, ascending."""
    analysed = {record.trial_id for record in data.spectra}
    settings = {
        (data.targets, part.rank): (part.lora_alpha, part.best_learning_rate)
        for part in ranks
        if part.lora_alpha is not None and part.best_learning_rate is not None
    }
    by_id = {trial.trial_id: trial for trial in trials}
    chosen = representative_trials(data.trials, settings, analysed.__contains__)
    return {rank: by_id[trial_id] for (_, rank), trial_id in chosen.items()}


def spectra_parts(data: StudyData, examined: Mapping[int, TrialSection]) -> tuple[SpectrumSection, ...]:
    """Summarise the spectra of each rank by kind of module, in the order of ranks and of the model."""
    parts: list[SpectrumSection] = []
    for rank, trial in examined.items():
        parts += spectra_by_kind(rank, [record for record in data.spectra if record.trial_id == trial.trial_id])
    return tuple(parts)


def spectra_by_kind(rank: int, records: Sequence[SpectrumRecord]) -> tuple[SpectrumSection, ...]:
    """Summarise an adapter's spectra by kind of module, in the order of the records."""
    by_kind: dict[str, list[SpectrumRecord]] = {}
    for record in records:
        by_kind.setdefault(module_kind(record.layer), []).append(record)
    return tuple(_spectrum(rank, kind, own) for kind, own in by_kind.items())


def truncation_part(data: StudyData, examined: Mapping[int, TrialSection]) -> TruncationSection | None:
    """Compare the largest rank's adapter, cut, with the whole and with smaller ranks that were trained."""
    top = max(examined, default=0)
    records = [record for record in data.truncations if top and record.trial_id == examined[top].trial_id]
    whole = last_finite(data.evaluations[examined[top].trial_id]) if records else None
    if whole is None:
        return None
    loss = as_rows(whole.example_nats, whole.example_target_tokens)
    cuts = compare_cuts(
        loss,
        {record.rank: as_rows(record.example_nats, record.example_target_tokens) for record in records},
        {rank: trial.eval_loss for rank, trial in examined.items()},
    )
    return TruncationSection(
        trial_id=whole.trial_id,
        rank=top,
        eval_loss=loss.loss,
        adequate_rank=adequate_rank(cuts, data.spec.tolerance),
        cuts=cuts,
    )


def compare_cuts(
    whole: SeedRows, cuts: Mapping[int, SeedRows], trained: Mapping[int, float | None]
) -> tuple[CutSection, ...]:
    """Compare the losses of a truncated adapter with the whole one's, over the same rows.

    Args:
        whole: of the whole adapter.
        cuts: by the rank that it was truncated to.
        trained: losses of adapters that were trained at those ranks, where there are any.
    """
    found = []
    for (rank, cut), excess_ci95 in zip(cuts.items(), differences_from_first([whole, *cuts.values()]), strict=True):
        finite = bool(np.isfinite(cut.nats).all())
        found.append(
            CutSection(
                rank=rank,
                eval_loss=cut.loss if finite else None,
                excess_loss=cut.loss - whole.loss if finite else None,
                excess_loss_ci95=excess_ci95 if finite else None,
                trained_eval_loss=trained.get(rank),
            )
        )
    return tuple(found)


def with_forgetting(
    data: StudyData, ranks: Sequence[RankSection], examined: Mapping[int, TrialSection]
) -> tuple[RankSection, ...]:
    """Add to each rank what it lost on the generic text; a loss on another version of that text does not count."""
    base = data.forgetting.get(BASE_MODEL)
    found: dict[int, ForgettingSection] = {}
    for rank, trial in examined.items():
        record = data.forgetting.get(trial.trial_id)
        if base is not None and record is not None and record.text_hash == base.text_hash:
            found[rank] = forgetting_change(base, record)
    return tuple(part.model_copy(update={"forgetting": found.get(part.rank)}) for part in ranks)


def generic_text_part(data: StudyData) -> GenericTextSection | None:
    """Say which text was read; None where none was."""
    base = data.forgetting.get(BASE_MODEL)
    return None if base is None else generic_text(base)


def generic_text(base: ForgettingRecord) -> GenericTextSection:
    """Say which text the base was evaluated on."""
    return GenericTextSection(
        name=base.text,
        windows=len(base.window_nats),
        target_tokens=sum(base.window_target_tokens),
        text_hash=base.text_hash,
    )


def adequate_rank(cuts: Sequence[CutSection], tolerance: float) -> int | None:
    """Return the smallest rank whose excess, and that of all larger ones, is below the tolerance with its interval.

    Ranks are tested from the largest down to the first that fails, so that no correction for their number is due.
    """
    smallest = None
    for cut in reversed(cuts):
        if cut.excess_loss_ci95 is None or cut.excess_loss_ci95[1] > tolerance:
            break
        smallest = cut.rank
    return smallest


def _spectrum(rank: int, kind: str, records: Sequence[SpectrumRecord]) -> SpectrumSection:
    effective_L = [effective_rank(record.singular_values) for record in records]

    def mean_energy_rank(share: float) -> float:
        return float(np.mean([energy_rank(record.singular_values, share) for record in records]))

    return SpectrumSection(
        rank=rank,
        module=kind,
        layers=len(records),
        effective_rank=float(np.mean(effective_L)),
        effective_rank_min=min(effective_L),
        effective_rank_max=max(effective_L),
        energy_rank_50=mean_energy_rank(0.5),
        energy_rank_90=mean_energy_rank(0.9),
        energy_rank_99=mean_energy_rank(0.99),
    )


def forgetting_change(base: ForgettingRecord, trained: ForgettingRecord) -> ForgettingSection:
    """Compare two losses on the same text, the base's first."""
    rows = [as_rows(record.window_nats, record.window_target_tokens) for record in (base, trained)]
    before, after = (row.loss for row in rows)
    if not np.isfinite(after):
        return ForgettingSection(before=before, after=None, change=None, change_ci95=None)
    ci95 = differences_from_first(rows)[0]
    return ForgettingSection(before=before, after=after, change=after - before, change_ci95=ci95)


def as_rows(nats: Sequence[float], tokens: Sequence[int]) -> SeedRows:
    """Return the nats and target tokens of rows as those of one seed; rows without a target are left out."""
    counted = np.array(tokens, dtype=np.float64)
    return SeedRows(nats=np.array([nats], dtype=np.float64)[:, counted > 0], target_tokens=counted[counted > 0])


def differences_from_first(rows: Sequence[SeedRows]) -> list[Interval | None]:
    """Return the paired 95% interval of each loss minus the first; none with fewer than two rows."""
    if len(rows[0].target_tokens) < 2:
        return [None] * (len(rows) - 1)
    pairs = differences(rows)
    found = [pairs[0, place].turned().interval() for place in range(1, len(rows))]
    return [(estimate.low, estimate.high) for estimate in found]
