"""What the alpha rule does to a comparison of ranks, in words."""

from collections.abc import Sequence

from lorascope.records import TrialRecord
from lorascope.spec.schema import StudySpec
from lorascope.text.language import tr

THEORY = {"proportional": 0.5, "rslora": 0.25, "fixed": 0.0}
"""The best learning rate falls as r to minus this power (muA, arXiv 2602.06204, 2026)."""


def alpha_effect(spec: StudySpec, trials: Sequence[TrialRecord]) -> str:
    """Say each rank's scale, what theory expects of the best learning rates, and whether the study takes it out."""
    scales = {trial.rank: trial.scale for trial in sorted(trials, key=lambda trial: trial.rank)}
    if len(scales) < 2:
        return ""
    rates = [{trial.learning_rate for trial in trials if trial.rank == rank} for rank in scales]
    if all(len(tried) > 1 for tried in rates):
        end = tr(
            "Each rank is judged at its own best learning rate, which takes this out as far as the rates tried reach."
        )
    elif len(set.union(*rates)) == 1:
        end = tr("All ranks were trained at one learning rate: a difference may be one of learning rates.")
    else:
        end = tr("Not every rank was tried at several learning rates: a difference may be one of learning rates.")
    return f"{_scales(spec, scales)} {_expected(spec, min(scales), max(scales))} {end}"


def _scales(spec: StudySpec, scales: dict[int, float]) -> str:
    low, high = min(scales), max(scales)
    if isinstance(spec.lora_alpha, tuple):
        shown = ", ".join(tr("{scale:g} at rank {rank}", scale=scale, rank=rank) for rank, scale in scales.items())
        return tr("Alpha was given for each rank; the update is multiplied by {scales}.", scales=shown)
    if spec.alpha_rule == "proportional":
        return tr(
            "Alpha is {multiple:g} r, so the update of every rank is multiplied by {scale:g}.",
            multiple=spec.alpha_over_rank,
            scale=scales[low],
        )
    return tr(
        "Alpha is {alpha:g} for every rank, so the update is multiplied by {formula}: {low_scale:g} at rank {low}, "
        "{high_scale:g} at rank {high}.",
        alpha=spec.lora_alpha,
        formula="alpha / sqrt(r)" if spec.alpha_rule == "rslora" else "alpha / r",
        low=low,
        low_scale=scales[low],
        high=high,
        high_scale=scales[high],
    )


def _expected(spec: StudySpec, low: int, high: int) -> str:
    if isinstance(spec.lora_alpha, tuple):
        return tr("No theory says how the best learning rate then moves with the rank.")
    power = THEORY[spec.alpha_rule]
    if power == 0:
        return tr(
            "Theory (muA, arXiv 2602.06204) expects the same best learning rate for all ranks; published sweeps (LoRA "
            "Without Regret, 2025) found it to move by less than a factor of 2 from rank 4 to 512."
        )
    factor = (high / low) ** power
    if spec.alpha_rule == "proportional":
        return tr(
            "At one learning rate a larger rank takes larger steps: theory (muA, arXiv 2602.06204) expects the best "
            "learning rate to fall as r^-{power:g}, by a factor of {factor:.1f} from rank {low} to {high}.",
            power=power,
            factor=factor,
            low=low,
            high=high,
        )
    return tr(
        "Theory (muA, arXiv 2602.06204) expects the best learning rate to fall as r^-{power:g}, by a factor of "
        "{factor:.1f} from rank {low} to {high}.",
        power=power,
        factor=factor,
        low=low,
        high=high,
    )
