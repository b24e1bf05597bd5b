"""PEFT's options select the same layers, and give the same losses and adapters, as in PEFT."""

import runpy
import warnings
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import PreTrainedModel

from lorascope.engine.verify import prepare_model
from lorascope.errors import InputError
from lorascope.modeling.adapters.adapter import Adapter, AdapterShape
from lorascope.modeling.adapters.initialisation import check_initialisation
from lorascope.modeling.adapters.peft_io import read_updates, save_peft
from lorascope.modeling.target_selection import select_sets
from lorascope.modeling.targets import check_adapter_sizes
from lorascope.search.trials import adapter_parameters, plan_trials
from lorascope.spec.schema import StudySpec
from support.groups import Kept, make_spec, prepared, run_group
from support.tiny_models import make_model, make_splits

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "one_rank.py"))
PATTERNS: dict[str, Any] = {
    "rank_pattern": {"v_proj": 3, r".*\.1\.mlp\.up_proj": 1},
    "alpha_pattern": {"0.self_attn.q_proj": 7.0},
}  # fmt: skip
SELECTIONS: list[dict[str, Any]] = [
    {"exclude_modules": ("k_proj", "model.layers.0.mlp.up_proj")},
    {"exclude_modules": r".*\.0\..*"},
    {"target_modules": ("q_proj", "v_proj"), "layers_to_transform": (1,)},
    {"target_modules": ("q_proj",), "layers_to_transform": (0,), "layers_pattern": "layers"},
    {"target_modules": ("q_proj", "down_proj"), "layers_to_transform": (0, 7), "layers_pattern": ("h", "layers")},
    {"target_modules": ("up_proj",), "layers_to_transform": (1,), "exclude_modules": ("q_proj",)},
    {"target_modules": r".*(q|up)_proj|lm_head", "exclude_modules": ("lm_head",)},
]


def wrapped(model: PreTrainedModel, **options: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
    """PEFT's model, and its LoRA layers by the base's names."""
    given = {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what peft and transformers say of each other
        config: Any = peft.LoraConfig
        model = peft.get_peft_model(model, config(task_type="CAUSAL_LM", **given))
    layers = {
        name.removeprefix("base_model.model."): module
        for name, module in model.named_modules()
        if isinstance(module, peft.tuners.lora.LoraLayer)
    }
    return model, layers


@pytest.mark.parametrize("options", SELECTIONS)
def test_selected_layers_are_those_of_peft(options: dict[str, Any]) -> None:
    options = {"target_modules": "all-linear"} | options
    if not (theirs := dict(options)).get("layers_to_transform"):
        theirs.pop("layers_to_transform", None)
    ours = select_sets(make_model("llama"), StudySpec(**options))[""]
    assert sorted(ours) == sorted(wrapped(make_model("llama"), **theirs)[1])


def test_blocks_may_be_chosen_of_all_linear_layers() -> None:
    """PEFT refuses ``all-linear`` with blocks."""
    chosen = select_sets(make_model("llama"), StudySpec(layers_to_transform=(1,)))[""]
    assert len(chosen) == 7
    assert all(".layers.1." in name for name in chosen)


@dataclass
class Trained:
    """One rank trained by the engine and by PEFT, from the same values."""

    ours: Kept
    losses: list[float]
    layers: dict[str, Any]
    model: PreTrainedModel
    frozen: Any
    spec: StudySpec


def both(dtype: torch.dtype, *, kernels: bool = False, rule: str = "proportional", **options: Any) -> Trained:
    fields: dict[str, Any] = {"target_modules": "all-linear", "alpha_rule": rule, **options}
    spec = make_spec(ranks=(4,), lora_dropout=0.0, warmup_steps=0, **fields)
    trial = plan_trials(spec)[0]
    base = make_model("llama", dtype)
    targets = select_sets(base, spec)[""]
    model, layers = wrapped(
        make_model("llama", dtype), r=4, lora_alpha=trial.lora_alpha, target_modules="all-linear",
        use_rslora=rule == "rslora", **options,
    )  # fmt: skip
    frozen, _ = prepare_model(base, targets, make_splits().train, packing=True, kernels=kernels)
    start: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def keep(trials: Any) -> None:
        start.update({name: (a.A.clone(), a.B.clone()) for name, a in trials[0].adapter.layers.items()})

    ours = run_group(spec, frozen=frozen, prepare_trials=keep)
    trained = {}
    for name, layer in layers.items():
        A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        if options.get("init_lora_weights", True) in {True, "gaussian"}:
            A.data.copy_(start[name][0])
        for mine, their in zip(start[name], (A, B), strict=True):
            torch.testing.assert_close(mine, their.detach().to(mine.dtype))
        trained[name] = type("Layer", (), {"A": A, "B": B})
    steps = list(EXAMPLE["train"](model, trained, make_splits().train, spec, spec.max_steps))
    return Trained(ours=ours, losses=[s.loss for s in steps], layers=trained, model=model, frozen=frozen, spec=spec)


def save(found: Trained, folder: Path) -> None:
    trial, spec = plan_trials(found.spec)[0], found.spec
    save_peft(
        folder, found.ours.trials["r4"].adapter.layers, found.frozen.layers, base="a", rank=4,
        lora_alpha=trial.lora_alpha, rslora=spec.alpha_rule == "rslora", dropout=0.0,
        rank_pattern=spec.rank_pattern, alpha_pattern=spec.alpha_pattern,
    )  # fmt: skip


@pytest.mark.parametrize("kernels", [False, True])
def test_patterns_give_the_losses_and_the_adapter_of_peft(kernels: bool, tmp_path: Path) -> None:
    found = both(torch.float64, kernels=kernels, **PATTERNS)
    np.testing.assert_allclose(found.ours.losses("r4"), found.losses, rtol=1e-9)
    ranks = {len(layer.A) for layer in found.layers.values()}
    assert ranks == {1, 3, 4}
    n_trained = sum(layer.A.numel() + layer.B.numel() for layer in found.layers.values())
    assert adapter_parameters(found.spec, 4, found.frozen.layers) == n_trained
    assert found.ours.trials["r4"].adapter.flat.numel() == n_trained
    save(found, tmp_path / "adapter")
    assert_loads_into_peft(found, tmp_path / "adapter", torch.float64, 1e-9)


def test_the_first_pattern_that_matches_counts_in_the_saved_adapter_too(tmp_path: Path) -> None:
    found = both(torch.float64, rank_pattern={"v_proj": 3, "layers.1.self_attn.v_proj": 2})
    save(found, tmp_path / "adapter")
    assert_loads_into_peft(found, tmp_path / "adapter", torch.float64, 1e-9)


def assert_loads_into_peft(found: Trained, folder: Path, dtype: torch.dtype, tolerance: float) -> None:
    ids = torch.arange(12)[None]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        loaded = peft.PeftModel.from_pretrained(make_model("llama", dtype), folder).eval()
        expected = found.model.eval()(ids).logits
        torch.testing.assert_close(loaded(ids).logits, expected, rtol=tolerance, atol=tolerance)
    assert set(read_updates(folder)) == set(found.layers)


@pytest.mark.parametrize("how", ["pissa", "olora"])
@pytest.mark.parametrize("rule", ["proportional", "rslora"])
@pytest.mark.parametrize("kernels", [False, True])
def test_initial_values_from_the_base_train_as_in_peft(how: str, rule: str, kernels: bool, tmp_path: Path) -> None:
    """In float32, in which PEFT makes them: residual weights and a subtracted update differ by rounding alone."""
    found = both(torch.float32, kernels=kernels, rule=rule, init_lora_weights=how)
    np.testing.assert_allclose(found.ours.losses("r4"), found.losses, rtol=2e-4)
    save(found, tmp_path / "adapter")
    assert_loads_into_peft(found, tmp_path / "adapter", torch.float32, 5e-3)


def test_limit_on_adapters_is_compared_with_the_saved_rank() -> None:
    layers = prepared("llama").layers
    trained = sum(2 * sum(layer.features) for layer in layers.values())
    for how, parameters in (("gaussian", trained), ("pissa", 2 * trained)):
        for size, fits in ((4 * parameters, True), (4 * parameters - 1, False)):
            spec = StudySpec(ranks=(2,), init_lora_weights=how, max_adapter_mb=size / 1e6)
            with nullcontext() if fits else pytest.raises(InputError, match="nearest adapter"):
                check_adapter_sizes(layers, spec, torch.float32)


def test_initial_values_from_the_base_leave_the_base_loss_at_first() -> None:
    """Also with other adapters, other rows and dropout in the same micro-batch."""
    spec = make_spec(ranks=(2, 4), init_lora_weights="pissa")
    plain, started = (run_group(s) for s in (make_spec(ranks=(2, 4)), spec))
    for trial in ("r2", "r4"):
        np.testing.assert_allclose(started.eval_nats(trial)[0], plain.eval_nats(trial)[0], rtol=1e-6)
        assert abs(started.losses(trial)[-1] - plain.losses(trial)[-1]) > 1e-4


def test_randomised_initial_values_are_those_of_the_exact_svd_and_drawn_once() -> None:
    shapes = [AdapterShape(rank=4, scale=0.5, dropout=0.0, seed=s, initialisation="pissa_niter_16") for s in (0, 1)]
    exact = AdapterShape(rank=4, scale=0.5, dropout=0.0, seed=0, initialisation="pissa")
    a, b, c = (
        Adapter(prepared("llama").layers, shape, compute_dtype=torch.float64).layers for shape in (*shapes, exact)
    )
    for name, layer in prepared("llama").layers.items():
        assert torch.equal(a[name].A, b[name].A)
        weight = layer.base.get_parameter("weight")
        rest, least = ((weight - 0.5 * one[name].B @ one[name].A).norm().item() for one in (a, c))
        assert least <= rest < 1.03 * least


def test_gaussian_values_have_the_spread_of_peft() -> None:
    found = both(torch.float64, init_lora_weights="gaussian")
    np.testing.assert_allclose(found.ours.losses("r4"), found.losses, rtol=1e-9)
    shape = AdapterShape(rank=8, scale=1.0, dropout=0.0, seed=0, initialisation="gaussian")
    layers = (layer for seed in range(9) for layer in adapter_of(replace(shape, seed=seed)).layers.values())
    drawn = torch.cat([layer.A.detach().flatten() for layer in layers])
    theirs_by_name = wrapped(make_model("llama"), r=8, init_lora_weights="gaussian", target_modules="all-linear")[1]
    theirs = torch.cat([layer.lora_A["default"].weight.detach().flatten() for layer in theirs_by_name.values()])
    assert drawn.std().item() == pytest.approx(1 / 8, rel=0.03)
    assert drawn.std().item() == pytest.approx(theirs.std().item(), rel=0.05)


def adapter_of(shape: AdapterShape) -> Adapter:
    return Adapter(prepared("llama").layers, shape, compute_dtype=torch.float64)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"exclude_modules": ("k_prj",)}, ("exclude_modules k_prj matches no layer", "q_proj")),
        ({"exclude_modules": "("}, ("not a regular expression", "o_proj")),
        ({"exclude_modules": ".*"}, ("leave no target layer",)),
        ({"layers_to_transform": (9,)}, ("leave no target layer",)),
        ({"rank_pattern": {"k_prj": 2}}, ("rank_pattern 'k_prj' matches no target layer", "q_proj")),
        ({"alpha_pattern": {"k_prj": 2}}, ("alpha_pattern 'k_prj' matches no target layer",)),
        ({"rank_pattern": {".*": 2}}, ("every target layer", "leave some")),
        ({"rank_pattern": {"k_proj": 9}}, ("at most rank 8", "at most 8")),
    ],
)
def test_options_that_select_nothing_are_refused(options: dict[str, Any], parts: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        select_sets(make_model("llama"), StudySpec(**options))[""]
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_initial_values_that_a_layer_does_not_have_are_refused() -> None:
    for kind, how, rank, part in (("llama", "pissa", 9, "at most rank 8"), ("gpt2", "olora", 2, "a Conv1D")):
        layers = prepared(kind).layers
        with pytest.raises(InputError, match=part):
            check_initialisation(layers, StudySpec(ranks=(rank,), init_lora_weights=how))
