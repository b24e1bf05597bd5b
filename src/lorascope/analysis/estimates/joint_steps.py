"""Steps of trial groups, from records that hold each of them once for every trial.

Shapes: T records of all trials, S joint steps.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lorascope.records import EvalRecord
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
    """Count each step of a trial group once."""
    columns = list(trials)
    none = np.array([], dtype=np.int64)
    step_T, group_T, tokens_T = (
        np.concatenate([none, *(getattr(steps, name) for steps in columns)]) for name in ("step", "group", "tokens")
    )
    seconds_T: Floats = np.concatenate([none.astype(np.float64), *(steps.seconds for steps in columns)])
    key_T = step_T * (group_T.max(initial=0) + 1) + group_T
    _, first_S, joint_T, trials_S = np.unique(key_T, return_index=True, return_inverse=True, return_counts=True)
    return JointSteps(
        seconds=seconds_T[first_S], trials=trials_S, tokens=np.bincount(joint_T, tokens_T, len(first_S)).astype(int)
    )


def evaluation_seconds(trials: Iterable[Iterable[EvalRecord]]) -> float:
    """Add up the evaluations of trials; that of the base model, which all of a group share, counts once."""
    found = {
        (record.step, record.seconds, record.trial_id if record.step else "")
        for records in trials
        for record in records
    }
    return math.fsum(seconds for _, seconds, _ in found)
