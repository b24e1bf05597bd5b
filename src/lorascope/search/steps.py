"""Warm-up, rungs and evaluation steps of a trial: pure functions of the study and the number of steps."""

import math

from lorascope.search.trials import planned_settings
from lorascope.spec.schema import StudySpec

RUNGS = (1 / 8, 3 / 8)
"""Shares of the steps after warm-up at which learning rates may stop."""


def warmup_steps(spec: StudySpec, total_steps: int) -> int:
    """Return the number of warm-up steps; a value below 1 is a share of all steps, rounded up."""
    return math.ceil(spec.warmup_steps * total_steps if spec.warmup_steps < 1 else spec.warmup_steps)


def exits_early(spec: StudySpec) -> bool:
    """Return True if learning rates may stop early; with one or two trials per rank and seed that saves nothing."""
    return spec.early_exit and any(len(planned_settings(spec, rank)) > 2 for rank in spec.ranks)


def rung_steps(spec: StudySpec, total_steps: int) -> tuple[int, ...]:
    """Return the steps of the rungs, ascending and before the last step; empty without early exit."""
    if not exits_early(spec):
        return ()
    warmup = warmup_steps(spec, total_steps)
    steps = {warmup + math.ceil(share * (total_steps - warmup)) for share in RUNGS}
    return tuple(sorted(step for step in steps if step < total_steps))


def evaluation_steps(spec: StudySpec, total_steps: int) -> tuple[int, ...]:
    """Return the steps after which trials are evaluated, ascending from 0 to the last.

    Without ``eval_steps`` there are four after the start: at quarters of the run; or with early exit at its rungs, at
    the end, and halfway between the last rung and the end.
    """
    rungs = rung_steps(spec, total_steps)
    if spec.eval_steps is None and rungs:
        steps = {*rungs, math.ceil((rungs[-1] + total_steps) / 2)}
    else:
        steps = {*rungs, *range(0, total_steps, spec.eval_steps or math.ceil(total_steps / 4))}
    return tuple(sorted({0, *steps, total_steps}))
