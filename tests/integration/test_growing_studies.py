"""Studies that grow in their folder: the trials added are those of a study that had them from the start."""

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from lorascope.analysis import summarize
from lorascope.analysis.study_data import load_study
from lorascope.errors import InputError, Interrupted
from lorascope.spec.load import dump_spec, load_spec
from lorascope.spec.schema import StudySpec
from support.studies import execute, study_of

Lorascope = Callable[..., tuple[int, str, str]]
RATES = (1e-3, 5e-3)
ROUNDING = 1e-5
"""Of float32: matrix products are of other shapes where other trials train beside one."""
GROWTH: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "seeds of two rates": ({"seeds": (3,), "learning_rates": RATES}, {"seeds": (3, 1)}),
    "ranks": ({"ranks": (2, 8)}, {"ranks": (2, 4, 8)}),
    "rates": (
        {"learning_rates": RATES, "early_exit": False, "max_grid_extensions": 0},
        {"learning_rates": (*RATES, 2e-2)},
    ),
}


def stop_at_step_2(step: int) -> None:
    if step == 2:
        os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def spec(model_folders: Mapping[str, str], rows_file: str) -> StudySpec:
    return study_of(model_folders["llama"], rows_file, max_steps=4)


def trials(folder: Path) -> dict[str, dict[str, Any]]:
    """Return steps, evaluations and adapter of every trial that finished, as numbers."""
    data = load_study(folder)
    return {
        name: {
            "nats": data.steps[name].nats,
            "grad_norm": data.steps[name].grad_norm,
            "evaluations": np.array([record.example_nats for record in data.evaluations[name]]),
            **load_file(folder / "adapters" / name / "adapter_model.safetensors"),
        }
        for name, outcome in data.outcomes.items()
        if outcome.state == "finished"
    }


def assert_same(found: dict[str, dict[str, Any]], expected: dict[str, dict[str, Any]], rounding: float) -> None:
    assert found.keys() == expected.keys()
    for name, own in found.items():
        assert own.keys() == expected[name].keys()
        for key, values in own.items():
            np.testing.assert_allclose(
                values, expected[name][key], rtol=rounding, atol=rounding, err_msg=f"{name} {key}"
            )


@pytest.mark.parametrize("name", GROWTH)
def test_trials_that_are_added_are_those_of_a_study_that_had_them(spec: StudySpec, tmp_path: Path, name: str) -> None:
    first, later = GROWTH[name]
    small = spec.model_copy(update=first)
    whole = small.model_copy(update=later)
    execute(small, tmp_path / "grown")
    before = trials(tmp_path / "grown")
    execute(whole, tmp_path / "grown")
    execute(whole, tmp_path / "whole")
    grown = trials(tmp_path / "grown")
    assert_same({name: grown[name] for name in before}, before, 0.0)
    assert len(grown) > len(before)
    assert_same(grown, trials(tmp_path / "whole"), ROUNDING)
    assert execute(whole, tmp_path / "grown").steps == []
    assert [part.rank for part in summarize(tmp_path / "grown").ranks] == sorted(whole.ranks)


def test_a_study_that_was_stopped_grows_too(spec: StudySpec, tmp_path: Path) -> None:
    whole = spec.model_copy(update={"seeds": (0, 1), "ranks": (2, 4, 8)})
    with pytest.raises(Interrupted):
        execute(spec, tmp_path / "grown", at_step=stop_at_step_2)
    with pytest.raises(Interrupted):
        execute(whole, tmp_path / "grown", at_step=stop_at_step_2)
    execute(whole, tmp_path / "grown")
    execute(whole, tmp_path / "whole")
    assert_same(trials(tmp_path / "grown"), trials(tmp_path / "whole"), ROUNDING)


def test_what_is_added_comes_last_and_is_measured_too(spec: StudySpec, tmp_path: Path) -> None:
    measured = spec.model_copy(update={"cost": "quick"})
    execute(measured, tmp_path / "study")
    execute(measured.model_copy(update={"seeds": (5, 0), "ranks": (8, 4, 2)}), tmp_path / "study")
    there = load_spec(tmp_path / "study" / "study.yaml", {})
    assert (there.seeds, there.ranks) == ((0, 5), (2, 4, 8))
    assert set(trials(tmp_path / "study")) == {"r2", "r4", "r8", "r2-s5", "r4-s5", "r8-s5"}
    summary = summarize(tmp_path / "study")
    assert all(part.step_seconds is not None and part.seeds == 2 for part in summary.ranks)
    assert summary.study.complete


@pytest.mark.parametrize(
    ("first", "later", "why"),
    [
        ({"seeds": (0, 1)}, {"seeds": (1, 2)}, "it has trained 0: give those as well"),
        ({}, {"ranks": (4, 8)}, "it has trained 2"),
        ({}, {"learning_rates": RATES}, "began with one rate"),
        ({"learning_rates": RATES}, {"learning_rates": "auto"}, "chosen automatically"),
        ({}, {"eval_examples": 6}, "its trials have trained on all other rows"),
        ({"until_decided": True}, {"seeds": (0, 1, 2, 3)}, "chance of error of its looks"),
        ({"until_decided": True}, {"until_decided": False}, "its looks have been taken"),
        ({}, {"max_steps": 9}, "max_steps: 4 -> 9"),
    ],
)
def test_what_cannot_be_added_says_why(
    spec: StudySpec, tmp_path: Path, first: dict[str, Any], later: dict[str, Any], why: str
) -> None:
    small = spec.model_copy(update=first)
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.yaml").write_text(dump_spec(small), encoding="utf-8")
    with pytest.raises(InputError, match=why):
        execute(small.model_copy(update=later), tmp_path / "study")


@pytest.mark.parametrize("split", ["train", "train[:24]"])
def test_a_fixed_study_goes_on_until_it_is_decided(spec: StudySpec, tmp_path: Path, split: str) -> None:
    """It keeps its training and held-out rows; rows outside of its split are further held-out rows."""
    fixed = spec.model_copy(update={"split": split})
    execute(fixed, tmp_path / "study")
    before, sizes = trials(tmp_path / "study"), load_study(tmp_path / "study").resolved
    going_on = fixed.model_copy(update={"until_decided": True})

    with pytest.raises(Interrupted):
        execute(going_on, tmp_path / "study", at_step=stop_at_step_2)
    execute(going_on, tmp_path / "study")
    data = load_study(tmp_path / "study")
    assert data.looks
    assert data.looks[0].seeds == (0, 1, 2)
    assert sizes is not None
    assert data.resolved is not None
    assert (data.resolved.train_examples, data.resolved.eval_examples) == (sizes.train_examples, sizes.eval_examples)
    assert (data.resolved.data_hash == sizes.data_hash) == (split == "train")
    after = trials(tmp_path / "study")
    assert_same({name: after[name] for name in before}, before, 0.0)
    assert set(after) == {"r2", "r2-s1", "r2-s2", "r4", "r4-s1", "r4-s2"}
