"""Trials of a study: ranks, learning rates and seeds, with their names, alpha and scale."""

import math
from collections.abc import Mapping

from lorascope.records import TrialRecord
from lorascope.search.rates import automatic_rates
from lorascope.spec.fields.lora import pattern_value
from lorascope.spec.schema import StudySpec
from lorascope.units import lora_parameters


def plan_trials(spec: StudySpec) -> tuple[TrialRecord, ...]:
    """Return one trial for every rank, learning rate and seed; the seed varies fastest, the rank slowest."""
    return tuple(
        plan_trial(spec, rank=rank, learning_rate=learning_rate, seed=seed)
        for rank in spec.ranks
        for learning_rate in planned_rates(spec, rank)
        for seed in spec.seeds
    )


def plan_trial(spec: StudySpec, *, rank: int, learning_rate: float, seed: int) -> TrialRecord:
    """Return one trial."""
    return TrialRecord(
        trial_id=_trial_id(spec, rank, learning_rate, seed),
        rank=rank,
        lora_alpha=_lora_alpha(spec, rank),
        scale=_scale(spec, rank),
        learning_rate=learning_rate,
        seed=seed,
    )


def layer_shape(spec: StudySpec, rank: int, layer: str) -> tuple[int, float]:
    """Return rank and scale in one layer, by its full name, of the adapter of a rank."""
    own = pattern_value(spec.rank_pattern, layer, rank)
    alpha = pattern_value(spec.alpha_pattern, layer, _lora_alpha(spec, rank))
    return own, alpha / (math.sqrt(own) if spec.alpha_rule == "rslora" else own)


def adapter_parameters(spec: StudySpec, rank: int, features: Mapping[str, tuple[int, int]]) -> int:
    """Return the parameters of a rank's adapter over layers with these (input, output) features."""
    return sum(lora_parameters(layer_shape(spec, rank, name)[0], [sizes]) for name, sizes in features.items())


def saved_rank(spec: StudySpec, rank: int) -> int:
    """Return the rank that a rank's adapter is saved with: twice its own where it starts from the base's weights."""
    return 2 * rank if spec.starts_from_base else rank


def saved_parameters(spec: StudySpec, rank: int, features: Mapping[str, tuple[int, int]]) -> int:
    """Return the parameters in the files of a rank's adapter."""
    return adapter_parameters(spec, rank, features) * saved_rank(spec, rank) // rank


def planned_parameters(spec: StudySpec, features: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
    """Return the parameters of all planned adapters of layers with these features: those trained, and those saved."""
    ranks = [trial.rank for trial in plan_trials(spec)]
    trained = sum(adapter_parameters(spec, rank, features) for rank in ranks)
    return trained, sum(saved_parameters(spec, rank, features) for rank in ranks)


def planned_rates(spec: StudySpec, rank: int) -> tuple[float, ...]:
    """Return the study's learning rates for a rank, without those that the search adds."""
    if spec.learning_rates == "auto":
        return automatic_rates(rank=rank, scale=_scale(spec, rank))
    return spec.learning_rates


def differences(old: StudySpec, new: StudySpec) -> list[str]:
    """Return the fields that differ, each as ``field: old -> new``; empty for equal studies."""
    return [
        f"{field}: {_shown(getattr(old, field))} -> {_shown(getattr(new, field))}"
        for field in StudySpec.model_fields
        if getattr(old, field) != getattr(new, field)
    ]


def _trial_id(spec: StudySpec, rank: int, learning_rate: float, seed: int) -> str:
    parts = [f"r{rank}"]
    if len(planned_rates(spec, rank)) > 1:
        parts.append(f"lr{learning_rate!r}")
    if len(spec.seeds) > 1:
        parts.append(f"s{seed}")
    return "-".join(parts)


def _lora_alpha(spec: StudySpec, rank: int) -> float:
    if spec.alpha_rule == "proportional":
        return spec.alpha_over_rank * rank
    return spec.lora_alpha[spec.ranks.index(rank)] if isinstance(spec.lora_alpha, tuple) else spec.lora_alpha


def _scale(spec: StudySpec, rank: int) -> float:
    return _lora_alpha(spec, rank) / (math.sqrt(rank) if spec.alpha_rule == "rslora" else rank)


def _shown(value: object) -> str:
    return ", ".join(str(item) for item in value) if isinstance(value, tuple) else str(value)
