"""Trials of a study: ranks, alphas, learning rates and seeds, with their names and scale."""

import math
from collections.abc import Mapping

from lorascope.records import Setting, TrialRecord
from lorascope.search.rates import automatic_rates
from lorascope.spec.fields.lora import pattern_value
from lorascope.spec.schema import StudySpec
from lorascope.units import lora_parameters


def plan_trials(spec: StudySpec) -> tuple[TrialRecord, ...]:
    """Return one trial for every rank, alpha, learning rate and seed; the seed varies fastest, the rank slowest."""
    return tuple(
        plan_trial(spec, rank=rank, setting=setting, seed=seed)
        for rank in spec.ranks
        for setting in planned_settings(spec, rank)
        for seed in spec.seeds
    )


def plan_trial(spec: StudySpec, *, rank: int, setting: Setting, seed: int) -> TrialRecord:
    """Return one trial."""
    alpha, rate = setting
    return TrialRecord(
        trial_id=_trial_id(spec, rank, setting, seed),
        rank=rank,
        lora_alpha=alpha,
        scale=_scale(spec, rank, alpha),
        learning_rate=rate,
        seed=seed,
    )


def layer_shape(spec: StudySpec, rank: int, layer: str, lora_alpha: float) -> tuple[int, float]:
    """Return rank and scale in one layer, by its full name, of the adapter of a rank and alpha."""
    own = pattern_value(spec.rank_pattern, layer, rank)
    return own, _scale(spec, own, pattern_value(spec.alpha_pattern, layer, lora_alpha))


def adapter_parameters(spec: StudySpec, rank: int, features: Mapping[str, tuple[int, int]]) -> int:
    """Return the parameters of a rank's adapter over layers with these (input, output) features."""
    own = {name: pattern_value(spec.rank_pattern, name, rank) for name in features}
    return sum(lora_parameters(own[name], [sizes]) for name, sizes in features.items())


def saved_rank(spec: StudySpec, rank: int) -> int:
    """Return the rank that a rank's adapter is saved with: twice its own where it starts from the base's weights."""
    return 2 * rank if spec.starts_from_base else rank


def saved_parameters(spec: StudySpec, rank: int, features: Mapping[str, tuple[int, int]]) -> int:
    """Return the parameters in the files of a rank's adapter."""
    return adapter_parameters(spec, rank, features) * saved_rank(spec, rank) // rank


def planned_parameters(spec: StudySpec, features: Mapping[str, tuple[int, int]], whole: int) -> tuple[int, int]:
    """Return the parameters of all planned adapters of layers with these features: those trained, and those saved.

    Each has ``whole`` parameters of modules that are trained whole as well.
    """
    ranks = [trial.rank for trial in plan_trials(spec)]
    trained = sum(adapter_parameters(spec, rank, features) for rank in ranks)
    saved = sum(saved_parameters(spec, rank, features) for rank in ranks)
    return trained + whole * len(ranks), saved + whole * len(ranks)


def planned_settings(spec: StudySpec, rank: int) -> tuple[Setting, ...]:
    """Return each alpha with each learning rate for a rank, without the rates that the search adds."""
    return tuple((alpha, rate) for alpha in planned_alphas(spec, rank) for rate in planned_rates(spec, rank, alpha))


def planned_alphas(spec: StudySpec, rank: int) -> tuple[float, ...]:
    """Return the study's alphas for a rank."""
    given = spec.lora_alpha
    if spec.alpha_rule == "proportional":
        return (spec.alpha_over_rank * rank,)
    if isinstance(given, dict):
        return (given[rank],)
    return given if isinstance(given, tuple) else (given,)


def planned_rates(spec: StudySpec, rank: int, lora_alpha: float) -> tuple[float, ...]:
    """Return the study's learning rates for a rank and alpha, without those that the search adds."""
    if spec.learning_rates == "auto":
        return automatic_rates(rank=rank, scale=_scale(spec, rank, lora_alpha))
    return spec.learning_rates


def differences(old: StudySpec, new: StudySpec) -> list[str]:
    """Return the fields that differ, each as ``field: old -> new``; empty for equal studies."""
    return [
        f"{field}: {_shown(getattr(old, field))} -> {_shown(getattr(new, field))}"
        for field in StudySpec.model_fields
        if getattr(old, field) != getattr(new, field)
    ]


def _trial_id(spec: StudySpec, rank: int, setting: Setting, seed: int) -> str:
    alpha, rate = setting
    parts = [f"r{rank}"]
    if len(planned_alphas(spec, rank)) > 1:
        parts.append(f"a{alpha!r}".removesuffix(".0"))
    if len(planned_rates(spec, rank, alpha)) > 1:
        parts.append(f"lr{rate!r}")
    if len(spec.seeds) > 1:
        parts.append(f"s{seed}")
    return "-".join(parts)


def _scale(spec: StudySpec, rank: int, lora_alpha: float) -> float:
    return lora_alpha / (math.sqrt(rank) if spec.alpha_rule == "rslora" else rank)


def _shown(value: object) -> str:
    return ", ".join(str(item) for item in value) if isinstance(value, tuple) else str(value)
