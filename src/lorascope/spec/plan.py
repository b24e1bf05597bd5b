"""From a study to its trials, and from two studies to what sets them apart."""

import math

from lorascope.records import TrialRecord
from lorascope.spec.schema import StudySpec


def plan_trials(spec: StudySpec) -> tuple[TrialRecord, ...]:
    """Make one trial of every rank, learning rate and seed, in that order of the loops."""
    return tuple(
        TrialRecord(
            trial_id=_trial_id(spec, rank, learning_rate, seed),
            rank=rank,
            lora_alpha=_lora_alpha(spec, rank),
            scale=_scale(spec, rank),
            learning_rate=learning_rate,
            seed=seed,
        )
        for rank in spec.ranks
        for learning_rate in spec.learning_rates
        for seed in spec.seeds
    )


def differences(old: StudySpec, new: StudySpec) -> list[str]:
    """Say field by field what differs, as ``field: old -> new``; an empty list means equal studies."""
    return [
        f"{field}: {_shown(getattr(old, field))} -> {_shown(getattr(new, field))}"
        for field in StudySpec.model_fields
        if getattr(old, field) != getattr(new, field)
    ]


def _trial_id(spec: StudySpec, rank: int, learning_rate: float, seed: int) -> str:
    parts = [f"r{rank}"]
    if len(spec.learning_rates) > 1:
        parts.append(f"lr{learning_rate!r}")
    if len(spec.seeds) > 1:
        parts.append(f"s{seed}")
    return "-".join(parts)


def _lora_alpha(spec: StudySpec, rank: int) -> float:
    if spec.alpha_rule == "proportional":
        return spec.alpha_multiple * rank
    return spec.lora_alpha[spec.ranks.index(rank)] if isinstance(spec.lora_alpha, tuple) else spec.lora_alpha


def _scale(spec: StudySpec, rank: int) -> float:
    return _lora_alpha(spec, rank) / (math.sqrt(rank) if spec.alpha_rule == "rslora" else rank)


def _shown(value: object) -> str:
    return ", ".join(str(item) for item in value) if isinstance(value, tuple) else str(value)
