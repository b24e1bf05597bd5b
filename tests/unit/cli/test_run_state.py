import math

import pytest

from lorascope.cli.run_state import RunState
from support.cli import Script


def test_pace_follows_the_steps(script: Script) -> None:
    state = RunState(script.clock)
    script.clock.now = 100.0
    script.begin(state)
    script.step(state, 1, warmup=True)
    assert state.tokens_per_second is None
    script.step(state, 2)
    assert state.tokens_per_second == pytest.approx(200)
    assert state.elapsed_seconds == pytest.approx(102)


def test_time_left_is_what_the_run_says_and_falls_until_it_says_more(script: Script) -> None:
    state = RunState(script.clock)
    assert state.seconds_left is None
    assert state.tenths_done == 0
    state.progress(0.35, 40.0)
    assert state.tenths_done == 3
    script.clock.now += 30.0
    assert state.seconds_left == pytest.approx(10)
    script.clock.now += 30.0
    assert state.seconds_left == 0.0


def test_resumed_study_continues_its_smoothed_losses(script: Script) -> None:
    whole, continued = RunState(script.clock), RunState(script.clock)
    script.begin(whole)
    for step in (1, 2, 3):
        script.step(whole, step)
    script.begin(continued, done_steps=3)
    for state in (whole, continued):
        script.step(state, 4, loss=1.0)
    assert 1.0 < continued.rows["r8"].train_loss == whole.rows["r8"].train_loss < 1.5


def test_losses_are_smoothed_nats_per_token(script: Script) -> None:
    state = RunState(script.clock)
    script.begin(state)
    row = state.rows["r8"]
    assert row.train_loss is None
    script.step(state, 1, loss=2.0)
    assert row.train_loss == pytest.approx(2.0)
    script.step(state, 2, loss=1.0)
    assert row.train_loss == pytest.approx((0.9 * 2.0 + 1.0) / 1.9)
    script.step(state, 3, loss=math.nan)
    assert row.train_loss == pytest.approx((0.9 * 2.0 + 1.0) / 1.9)
    script.evaluate(state, 3, 1.25)
    assert row.eval_loss == pytest.approx(1.25)


def test_next_group_adds_its_trials(script: Script) -> None:
    state = RunState(script.clock)
    script.begin(state)
    script.end(state, steps=20)
    script.spec = script.spec.model_copy(update={"ranks": (16,)})
    script.begin(state)
    assert list(state.rows) == ["r8", "r128", "r16"]
    assert [row.state for row in state.rows.values()] == ["finished", "finished", "waiting"]
