"""Wall time of groups that train at once, whose records hold the time of each group."""

import math

from lorascope.analysis.estimates.joint_steps import evaluation_seconds, joint_steps
from lorascope.analysis.study_data import StudyData

_AT_ONCE = ("training", "evaluation")


def wall_share(data: StudyData) -> float:
    """Return the wall time of joint steps and evaluations divided by the sum over all groups; at most 1.

    Records do not say when a step was taken. Where an executor may train groups at once, the wall time is what the run
    spent on training and evaluations, in which the start of workers and steps that were lost count too: the share is
    an upper bound. It is 1 where groups train one after another, and before the time was counted.
    """
    spent = math.fsum(one.spent_seconds for one in data.activities if one.name in _AT_ONCE)
    if data.spec.executor == "inline" or not spent:
        return 1.0
    groups = float(joint_steps(data.steps.values()).seconds.sum()) + evaluation_seconds(data.evaluations.values())
    return min(1.0, spent / groups) if groups else 1.0
