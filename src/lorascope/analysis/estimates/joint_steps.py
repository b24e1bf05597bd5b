"""Steps that several trials did together, from records that hold each of them for every trial.

Shapes: T records of all trials, S joint steps.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lorascope.store.columns import Floats, Ints, StepColumns


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class JointSteps:
    """Each step once, however many trials took part in it."""

    seconds: Floats
    """[S]"""
    trials: Ints
    """Trials that took part, [S]."""
    tokens: Ints
    """Their tokens together, [S]."""


def joint_steps(trials: Iterable[StepColumns]) -> JointSteps:
    """Put the records of the same joint step together: those of one number and, to the last bit, one time."""
    columns = list(trials)
    none = np.array([], dtype=np.int64)
    step_T = np.concatenate([none, *(steps.step for steps in columns)])
    seconds_T = np.concatenate([none, *(steps.seconds for steps in columns)])
    tokens_T = np.concatenate([none, *(steps.tokens for steps in columns)])
    if not len(step_T):
        return JointSteps(seconds=seconds_T, trials=none, tokens=none)
    order = np.lexsort((seconds_T, step_T))
    step_T, seconds_T, tokens_T = step_T[order], seconds_T[order], tokens_T[order]
    begins = np.concatenate(([True], (np.diff(step_T) != 0) | (np.diff(seconds_T) != 0)))
    first_S = np.flatnonzero(begins)
    return JointSteps(
        seconds=seconds_T[first_S],
        trials=np.diff(np.append(first_S, len(step_T))),
        tokens=np.add.reduceat(tokens_T, first_S),
    )
