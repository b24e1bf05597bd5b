"""The teaching loop and the engine are the same mathematics."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from lorascope.modeling.adapters.adapter import Adapter, AdapterShape
from lorascope.search.trials import plan_trials
from support.groups import make_spec, prepared, run_group
from support.tiny_models import TARGETS, make_model, make_splits

EXAMPLE = Path(__file__).parents[2] / "examples" / "one_rank.py"


def test_one_rank_example_equals_the_engine(kind: str) -> None:
    example = runpy.run_path(str(EXAMPLE))
    spec = make_spec(ranks=(4,), lora_dropout=0.0, warmup_steps=0, target_modules=TARGETS[kind])
    trial = plan_trials(spec)[0]
    frozen = prepared(kind)
    engine = run_group(spec, kind, frozen=frozen)
    model = make_model(kind)
    layers = example["add_lora"](model, spec, trial.rank, trial.scale)
    start = Adapter(
        frozen.layers,
        AdapterShape(rank=trial.rank, scale=trial.scale, dropout=0.0, seed=trial.seed),
        compute_dtype=torch.float64,
    )
    with torch.no_grad():
        for name, layer in layers.items():
            layer.A.copy_(start.layers[name].A)
    steps = list(example["train"](model, layers, make_splits().train, spec, spec.max_steps))
    np.testing.assert_allclose(engine.losses("r4"), [step.loss for step in steps], rtol=1e-9)
    norms = [record.grad_norm for record in engine.step_records]
    assert norms == pytest.approx([step.grad_norm for step in steps], rel=1e-7)
    assert [record.learning_rate for record in engine.step_records] == pytest.approx([s.learning_rate for s in steps])


def test_one_rank_example_stays_short() -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 150
