"""Trials of a study: ranks, alphas, learning rates and seeds, with their names and scale."""

import math
from collections.abc import Mapping
from typing import Protocol

from lorascope.records import Arm, Setting, TrialRecord
from lorascope.search.rates import automatic_rates
from lorascope.search.target_sets import studies_by_set
from lorascope.spec.fields.lora import pattern_value
from lorascope.spec.schema import StudySpec
from lorascope.units import lora_parameters


def plan_trials(spec: StudySpec) -> tuple[TrialRecord, ...]:
    """Return one trial for every set of targets, rank, alpha, learning rate and seed; the seed varies fastest."""
    return tuple(
        plan_trial(spec, arm, setting=setting, seed=seed)
        for arm in planned_arms(spec)
        for setting in planned_settings(spec, arm[1])
        for seed in spec.seeds
    )


def planned_arms(spec: StudySpec) -> tuple[Arm, ...]:
    """Return every set of target modules, by its name, with every rank."""
    return tuple((targets, rank) for targets in studies_by_set(spec) for rank in spec.ranks)


def plan_trial(spec: StudySpec, arm: Arm, *, setting: Setting, seed: int) -> TrialRecord:
    """Return one trial."""
    targets, rank = arm
    alpha, rate = setting
    return TrialRecord(
        trial_id=_trial_id(spec, arm, setting, seed),
        targets=targets,
        rank=rank,
        lora_alpha=alpha,
        scale=_scale(spec, rank, alpha),
        learning_rate=rate,
        seed=seed,
    )


class AdaptedLayer(Protocol):
    """A layer with adapters."""

    share: int
    """Its adapters have this share of the rank."""

    @property
    def features(self) -> tuple[int, int]:
        """Return (in_features, out_features)."""


def layer_shape(spec: StudySpec, rank: int, layer: str, lora_alpha: float, share: int = 1) -> tuple[int, float]:
    """Return rank and scale in one layer, by its full name, of the adapter of a rank and alpha.

    An expert has a ``share`` of the rank, and under ``proportional`` the alpha of that.
    """
    own = _own_rank(spec, rank, layer, share)
    if share > 1 and spec.alpha_rule == "proportional":
        lora_alpha = spec.alpha_over_rank * max(1, rank // share)
    return own, _scale(spec, own, pattern_value(spec.alpha_pattern, layer, lora_alpha))


def _own_rank(spec: StudySpec, rank: int, layer: str, share: int) -> int:
    return pattern_value(spec.rank_pattern, layer, max(1, rank // share))


def adapter_parameters(spec: StudySpec, rank: int, layers: Mapping[str, AdaptedLayer]) -> int:
    """Return the parameters of a rank's adapter over layers by their full names."""
    own = {name: _own_rank(spec, rank, name, layer.share) for name, layer in layers.items()}
    return sum(lora_parameters(own[name], [layer.features]) for name, layer in layers.items())


def saved_rank(spec: StudySpec, rank: int) -> int:
    """Return the rank that a rank's adapter is saved with: twice its own where it starts from the base's weights."""
    return 2 * rank if spec.starts_from_base else rank


def saved_parameters(spec: StudySpec, rank: int, layers: Mapping[str, AdaptedLayer]) -> int:
    """Return the parameters in the files of a rank's adapter."""
    return adapter_parameters(spec, rank, layers) * saved_rank(spec, rank) // rank


def planned_parameters(
    spec: StudySpec, layers: Mapping[str, Mapping[str, AdaptedLayer]], whole: int
) -> tuple[int, int]:
    """Return the parameters of all planned adapters, those trained and those saved.

    Args:
        spec: the study.
        layers: those of each set of target modules, by its name.
        whole: parameters of modules that each trial trains whole as well.
    """
    arms = [(trial.rank, layers[trial.targets]) for trial in plan_trials(spec)]
    trained = sum(adapter_parameters(spec, *arm) for arm in arms)
    saved = sum(saved_parameters(spec, *arm) for arm in arms)
    return trained + whole * len(arms), saved + whole * len(arms)


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


def arm_name(arm: Arm) -> str:
    """Return the name of a rank in a set of target modules, such as ``r8`` or ``r8-q_proj,v_proj``."""
    targets, rank = arm
    return f"r{rank}-{targets}" if targets else f"r{rank}"


def _trial_id(spec: StudySpec, arm: Arm, setting: Setting, seed: int) -> str:
    """Name a trial; the study's first seed has no part in a name, so that names stay where seeds are added later."""
    rank = arm[1]
    alpha, rate = setting
    parts = [arm_name(arm)]
    if len(planned_alphas(spec, rank)) > 1:
        parts.append(f"a{alpha!r}".removesuffix(".0"))
    if len(planned_rates(spec, rank, alpha)) > 1:
        parts.append(f"lr{rate!r}")
    if seed != spec.seeds[0]:
        parts.append(f"s{seed}")
    return "-".join(parts)


def _scale(spec: StudySpec, rank: int, lora_alpha: float) -> float:
    return lora_alpha / (math.sqrt(rank) if spec.alpha_rule == "rslora" else rank)


def _shown(value: object) -> str:
    return ", ".join(str(item) for item in value) if isinstance(value, tuple) else str(value)
