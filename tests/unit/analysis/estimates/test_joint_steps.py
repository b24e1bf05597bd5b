"""Steps of trial groups are counted once, by the group that their records name."""

from lorascope.analysis.estimates.joint_steps import joint_steps
from lorascope.records import StepRecord
from lorascope.store.columns import StepColumns


def steps(*rows: tuple[int, int, int, float]) -> StepColumns:
    """Columns of one trial, from (step, group, tokens, seconds)."""
    return StepColumns.of_records(
        StepRecord(
            trial_id="r8", step=step, nats=1.0, target_tokens=1, tokens=tokens, learning_rate=1e-3, grad_norm=1.0,
            seconds=seconds, warmup=False, group=group,
        )
        for step, group, tokens, seconds in rows
    )  # fmt: skip


def test_joint_step_counts_once_for_all_its_trials() -> None:
    found = joint_steps([steps((1, 0, 10, 2.0), (2, 0, 20, 3.0)), steps((1, 0, 1, 2.0))])
    assert found.seconds.tolist() == [2.0, 3.0]
    assert found.trials.tolist() == [2, 1]
    assert found.tokens.tolist() == [11, 20]


def test_joint_steps_of_equal_duration_are_counted_separately() -> None:
    found = joint_steps([steps((1, 0, 10, 2.0)), steps((1, 3, 30, 2.0)), steps((1, 3, 5, 2.0), (2, 3, 7, 2.0))])
    assert found.seconds.tolist() == [2.0, 2.0, 2.0]
    assert found.trials.tolist() == [1, 2, 1]
    assert found.tokens.tolist() == [10, 35, 7]


def test_joint_steps_of_an_empty_study() -> None:
    for columns in ([], [steps()]):
        found = joint_steps(columns)
        assert [len(found.seconds), len(found.trials), len(found.tokens)] == [0, 0, 0]
