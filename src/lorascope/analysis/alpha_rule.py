"""Effect of the alpha rule on a comparison of ranks."""

from collections.abc import Sequence

from lorascope.message import Message, Sentences
from lorascope.records import TrialRecord
from lorascope.spec.schema import StudySpec

THEORY = {"proportional": 0.5, "rslora": 0.25, "fixed": 0.0}
"""The best learning rate falls as r to minus this power (muA, arXiv 2602.06204, 2026)."""


def alpha_effect(spec: StudySpec, trials: Sequence[TrialRecord]) -> Sentences:
    """State the scales, the best learning rates by theory and whether the study compensates; empty for one rank."""
    scales = {trial.rank: trial.scale for trial in sorted(trials, key=lambda trial: trial.rank)}
    if len(scales) < 2:
        return ()
    rates = [{trial.learning_rate for trial in trials if trial.rank == rank} for rank in scales]
    if all(len(tried) > 1 for tried in rates):
        end = Message("alpha.own_best_rates")
    else:
        end = Message("alpha.one_rate" if len(set.union(*rates)) == 1 else "alpha.some_rates")
    return _scales(spec, scales), _expected(spec, min(scales), max(scales)), end


def _scales(spec: StudySpec, scales: dict[int, float]) -> Message:
    low, high = min(scales), max(scales)
    if isinstance(spec.lora_alpha, tuple):
        return Message("alpha.tuned", alphas=tuple(f"{alpha:g}" for alpha in spec.lora_alpha), formula=_formula(spec))
    if isinstance(spec.lora_alpha, dict):
        shown = tuple(Message("alpha.scale_at_rank", scale=scale, rank=rank) for rank, scale in scales.items())
        return Message("alpha.given", scales=shown)
    if spec.alpha_rule == "proportional":
        return Message("alpha.proportional", multiple=spec.alpha_over_rank, scale=scales[low])
    return Message(
        "alpha.fixed",
        alpha=spec.lora_alpha,
        formula=_formula(spec),
        low=low,
        low_scale=scales[low],
        high=high,
        high_scale=scales[high],
    )


def _formula(spec: StudySpec) -> str:
    return "alpha / sqrt(r)" if spec.alpha_rule == "rslora" else "alpha / r"


def _expected(spec: StudySpec, low: int, high: int) -> Message:
    if isinstance(spec.lora_alpha, dict):
        return Message("alpha.no_theory")
    power = THEORY[spec.alpha_rule]
    if power == 0:
        return Message("alpha.theory_same")
    code = "alpha.theory_proportional" if spec.alpha_rule == "proportional" else "alpha.theory"
    return Message(code, power=power, factor=(high / low) ** power, low=low, high=high)
