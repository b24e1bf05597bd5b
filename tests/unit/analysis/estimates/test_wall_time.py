"""Groups that train at once: their times are not added up."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lorascope.analysis.cost.whole_run import joint_part
from lorascope.analysis.estimates.joint_steps import evaluation_seconds, joint_steps
from lorascope.analysis.estimates.wall_time import wall_share
from lorascope.analysis.study_data import StudyData, load_study
from lorascope.analysis.verdict.next_look import measured_prices
from lorascope.records import ActivityRecord


@pytest.fixture
def alone(make_study: Callable[..., Path]) -> StudyData:
    """A study whose groups trained one after another."""
    return load_study(make_study())


def group_seconds(data: StudyData) -> float:
    return math.fsum(joint_steps(data.steps.values()).seconds) + evaluation_seconds(data.evaluations.values())


def with_spent(data: StudyData, executor: str, seconds: float) -> StudyData:
    """The study, run by an executor, whose training and evaluations took these seconds together."""
    spent = {"training": 0.75 * seconds, "evaluation": 0.25 * seconds, "preparation": 1e6}
    activities = tuple(
        ActivityRecord(name=name, predicted_seconds=None, spent_seconds=one, seconds_left=0.0)
        for name, one in spent.items()
    )
    return replace(data, spec=data.spec.model_copy(update={"executor": executor}), activities=activities)


def test_time_of_groups_at_once_is_wall_time(alone: StudyData) -> None:
    total = group_seconds(alone)
    assert total > 0
    data = with_spent(alone, "process", total / 2)
    assert wall_share(data) == pytest.approx(0.5)
    part, before = joint_part(data, (), ()), joint_part(alone, (), ())
    assert part is not None
    assert before is not None
    assert part.seconds + part.evaluation_seconds == pytest.approx(total / 2)
    assert part.seconds == pytest.approx(before.seconds / 2)
    assert measured_prices(data).token_seconds == pytest.approx(measured_prices(alone).token_seconds / 2)


def test_wall_time_is_at_most_that_of_all_groups(alone: StudyData) -> None:
    total = group_seconds(alone)
    assert wall_share(with_spent(alone, "process", 3 * total)) == 1
    assert wall_share(with_spent(alone, "process", 0.0)) == 1
    assert wall_share(with_spent(alone, "inline", total / 2)) == 1
