"""A stop request is checked inside a micro-batch and leaves the weights unchanged."""

from collections.abc import Callable

import pytest
import torch

from lorascope.engine.loop import TrialGroup, train_group
from lorascope.engine.trial import TrainingTrial
from lorascope.errors import Interrupted
from lorascope.measure.clock import StepClock
from lorascope.search.trials import plan_trials
from support.groups import Kept, make_spec, prepared
from support.tiny_models import make_splits

LAYERS = 6
"""Adapted layers of the tiny model: three projections in each of two blocks."""


def make_group(check_stop: Callable[[], None]) -> tuple[TrialGroup, Kept]:
    """One trial whose step is one micro-batch."""
    spec = make_spec(ranks=(2,), tokens_per_pass=4096, max_steps=1)
    frozen, kept = prepared("llama"), Kept()
    trials = [TrainingTrial(record, spec, frozen.layers, torch.float64) for record in plan_trials(spec)]
    group = TrialGroup(
        frozen=frozen, trials=trials, splits=make_splits(n_eval=0), spec=spec, total_steps=1, recorder=kept,
        probe=StepClock(torch.device("cpu")), check_stop=check_stop,
    )  # fmt: skip
    return group, kept


def test_stop_is_checked_in_every_adapted_layer() -> None:
    heard: list[int] = []
    group, kept = make_group(lambda: heard.append(1))
    train_group(group)
    assert len(kept.step_records) == 1
    assert len(heard) > 1 + LAYERS, "once before the micro-batch, once in each layer, and again in backward"


@pytest.mark.parametrize("call", range(1, 1 + LAYERS + 2))
def test_stop_in_any_layer_leaves_weights_unchanged(call: int) -> None:
    heard: list[int] = []

    def check_stop() -> None:
        heard.append(1)
        if len(heard) == call:
            raise Interrupted("stopped as asked")

    group, kept = make_group(check_stop)
    before = group.trials[0].adapter.flat.clone()
    with pytest.raises(Interrupted):
        train_group(group)
    assert len(heard) == call
    assert kept.step_records == []
    assert group.trials[0].steps_done == 0
    assert torch.equal(group.trials[0].adapter.flat, before)
