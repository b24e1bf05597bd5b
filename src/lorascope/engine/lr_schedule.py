"""The learning rate as a pure function of the step, as in Transformers' schedules of the same names."""

import math

from lorascope.search.steps import warmup_steps
from lorascope.spec.schema import StudySpec


def learning_rate_factor(spec: StudySpec, *, step: int, total_steps: int) -> float:
    """Return what the peak learning rate is multiplied by in the update after ``step`` updates (0 for the first).

    ``linear`` falls to zero in a straight line after the warm-up, ``cosine`` along half a wave, ``constant`` stays.
    """
    warmup = warmup_steps(spec, total_steps)
    if step < warmup:
        return step / warmup
    if spec.lr_scheduler_type == "constant":
        return 1.0
    progress = (step - warmup) / max(1, total_steps - warmup)
    if spec.lr_scheduler_type == "linear":
        return max(0.0, 1.0 - progress)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
