"""Adapters of experts are those of PEFT's ``target_parameters``, for every trial on the experts that its rows take."""

import runpy
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import peft
import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from lorascope.costmodel.shapes import model_shape
from lorascope.engine.forward import FrozenModel
from lorascope.engine.verify import check_model
from lorascope.errors import InputError, SpecError
from lorascope.modeling.adapters import experts
from lorascope.modeling.adapters.adapter import attach
from lorascope.modeling.adapters.peft_io import load_peft, merge_peft, read_updates, save_peft, truncate_peft
from lorascope.modeling.target_selection import largest_share, select_sets
from lorascope.search.trials import plan_trials
from lorascope.spec.load import load_spec
from support.groups import Kept, make_spec, run_group
from support.tiny_models import make_model, make_splits

# PEFT looks for patterns of parameters among layers only, and says that it ignores those it uses
pytestmark = pytest.mark.filterwarnings("ignore:The following .*_pattern keys did not match:RuntimeWarning")
EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "one_rank.py"))
BOTH = ("experts.gate_up_proj", "experts.down_proj")
KINDS = ("mixtral", "gpt_oss")


def spec_of(**options: Any) -> Any:
    return make_spec(**{"ranks": (4,), "lora_dropout": 0.0, "warmup_steps": 0, "target_parameters": BOTH} | options)


def checked(kind: str, spec: Any, dtype: torch.dtype = torch.float64) -> FrozenModel:
    return check_model(spec, make_model(kind, dtype), make_splits().train, None).frozen


def in_peft(model: PreTrainedModel, folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what peft and transformers say of each other
        return peft.PeftModel.from_pretrained(model, folder).eval()


def save(kept: Kept, trial: Any, frozen: FrozenModel, spec: Any, folder: Path) -> None:
    save_peft(
        folder, kept.trials[trial.trial_id].adapter.layers, frozen.layers, base="a", rank=trial.rank,
        lora_alpha=trial.lora_alpha, rslora=spec.alpha_rule == "rslora", dropout=0.0,
        rank_pattern=spec.rank_pattern, alpha_pattern=spec.alpha_pattern,
    )  # fmt: skip


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.arange(5, 29)[None]).logits
    return found


@dataclass
class Trained:
    """One rank trained by the engine and by PEFT, from the same values."""

    ours: Kept
    losses: list[float]
    model: Any


def trained_by_both(kind: str, spec: Any, frozen: FrozenModel, **options: Any) -> Trained:
    """Train one rank here and as PEFT's model that the file of our start gives."""
    trial = plan_trials(spec)[0]
    start: dict[str, torch.Tensor] = {}

    def keep(trials: Any) -> None:
        start.update({name: layer.A.clone() for name, layer in trials[0].adapter.layers.items()})

    ours = run_group(spec, frozen=frozen, prepare_trials=keep)
    given = {"target_modules": ["q_proj", "k_proj", "v_proj"], "target_parameters": list(spec.target_parameters)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config: Any = peft.LoraConfig
        model = peft.get_peft_model(
            make_model(kind),
            config(task_type="CAUSAL_LM", r=trial.rank, lora_alpha=trial.lora_alpha, **given | options),
        )
    layers = {}
    for name, module in model.named_modules():
        if not isinstance(module, peft.tuners.lora.LoraLayer):
            continue
        layer: Any = module
        A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        own = name.removeprefix("base_model.model.").replace(".base_layer", "")
        if isinstance(module, peft.tuners.lora.layer.ParamWrapper):
            own = f"{own}.{layer.parameter_name}"
            A.data.copy_(torch.cat([start[f"{own}[{expert}]"] for expert in range(4)]))
        else:
            A.data.copy_(start[own])
        layers[own] = SimpleNamespace(A=A, B=B)
    steps = list(EXAMPLE["train"](model, layers, make_splits().train, spec, spec.max_steps))
    return Trained(ours=ours, losses=[step.loss for step in steps], model=model.eval())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("parameters", [BOTH, BOTH[:1], BOTH[1:]])
def test_experts_train_as_in_peft_and_their_files_are_its_own(
    kind: str, parameters: tuple[str, ...], tmp_path: Path
) -> None:
    spec = spec_of(target_parameters=parameters)
    frozen = checked(kind, spec)
    found = trained_by_both(kind, spec, frozen)
    np.testing.assert_allclose(found.ours.losses("r4"), found.losses, rtol=1e-9)
    trial = plan_trials(spec)[0]
    save(found.ours, trial, frozen, spec, tmp_path / "ours")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found.model.save_pretrained(tmp_path / "theirs")
    adapter = found.ours.trials["r4"].adapter
    trained = adapter.flat.detach().clone()
    with torch.no_grad():
        adapter.flat.zero_()
    load_peft(tmp_path / "theirs", adapter.layers)
    torch.testing.assert_close(adapter.flat.detach(), trained, rtol=1e-6, atol=1e-9)
    expected = logits(found.model)
    torch.testing.assert_close(logits(in_peft(make_model(kind), tmp_path / "ours")), expected, rtol=1e-7, atol=1e-7)
    merged = make_model(kind)
    merge_peft(merged, tmp_path / "ours")
    torch.testing.assert_close(logits(merged), expected, rtol=1e-6, atol=1e-6)
    assert (expected - logits(make_model(kind))).norm() > 1e-2 * expected.norm()


@pytest.mark.parametrize("rule", ["fixed", "rslora", "proportional"])
def test_share_of_the_rank_is_a_rank_pattern_in_peft(rule: str, tmp_path: Path) -> None:
    spec = spec_of(expert_rank_rule="per-expert-share", alpha_rule=rule)
    frozen = checked("mixtral", spec)
    kept = run_group(spec, frozen=frozen)
    shapes = {
        name.partition("experts")[1]: layer.A.shape[0] for name, layer in kept.trials["r4"].adapter.layers.items()
    }
    assert shapes == {"": 4, "experts": 2}
    scales = {layer.scale for name, layer in kept.trials["r4"].adapter.layers.items() if "experts" in name}
    assert scales == {{"fixed": 32 / 2, "rslora": 32 / 2**0.5, "proportional": 4.0}[rule]}
    save(kept, plan_trials(spec)[0], frozen, spec, tmp_path / "ours")
    attach(frozen.layers, [kept.trials["r4"].adapter])
    merged = make_model("mixtral")
    merge_peft(merged, tmp_path / "ours")
    loaded = logits(in_peft(make_model("mixtral"), tmp_path / "ours"))
    torch.testing.assert_close(loaded, logits(merged), rtol=1e-6, atol=1e-6)
    nats = kept.eval_nats("r4")[-1]
    assert nats == pytest.approx(model_nats(merged), rel=1e-9)


def model_nats(model: nn.Module) -> list[float]:
    rows, found = make_splits().eval, []
    for row in rows:
        with torch.no_grad():
            found.append(EXAMPLE["mean_loss"](model, [row]).item() * row.n_targets)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("packing", [True, False])
def test_ranks_trained_together_are_those_trained_alone_though_each_takes_other_experts(
    kind: str, packing: bool
) -> None:
    spec = spec_of(ranks=(2, 4, 8), packing=packing, expert_rank_rule="per-expert-share", seeds=(0, 1))
    frozen = checked(kind, spec)
    taken: dict[int, set[tuple[int, ...]]] = {}

    def keep(layer: Any, routing: Any) -> None:
        for expert, cuts in enumerate(routing.cuts):
            taken.setdefault(expert, set()).add(tuple(np.diff(cuts)))

    original = experts.MultiLoraExperts._route

    def watched(self: Any, *given: Any) -> Any:
        routing = original(self, *given)
        keep(self, routing)
        return routing

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(experts.MultiLoraExperts, "_route", watched)
        joint = run_group(spec, frozen=frozen)
    assert any(len(set(own[1::2])) > 1 for cuts in taken.values() for own in cuts if len(own) > 3)
    for record in plan_trials(spec):
        alone = run_group(spec, frozen=frozen, records=[record])
        np.testing.assert_allclose(joint.losses(record.trial_id), alone.losses(record.trial_id), rtol=1e-10)
        np.testing.assert_allclose(joint.eval_nats(record.trial_id), alone.eval_nats(record.trial_id), rtol=1e-10)


def test_truncated_adapter_has_the_smaller_rank_in_each_expert(tmp_path: Path) -> None:
    spec = spec_of(expert_rank_rule="per-expert-share", ranks=(8,))
    frozen = checked("mixtral", spec)
    kept = run_group(spec, frozen=frozen)
    save(kept, plan_trials(spec)[0], frozen, spec, tmp_path / "whole")
    truncate_peft(tmp_path / "whole", tmp_path / "same", 7)
    whole, cut = (read_updates(tmp_path / name) for name in ("whole", "same"))
    name = "model.layers.1.mlp.experts.down_proj[3]"
    deltas = [one[name].scale * one[name].B @ one[name].A for one in (whole, cut)]
    torch.testing.assert_close(*deltas)
    truncate_peft(tmp_path / "whole", tmp_path / "cut", 2)
    assert {len(update.A) for update in read_updates(tmp_path / "cut").values()} == {2}
    change = logits(in_peft(make_model("mixtral"), tmp_path / "cut")) - logits(make_model("mixtral"))
    assert change.norm() > 1e-3


def test_patterns_give_parameters_ranks_of_their_own_as_in_peft() -> None:
    options: dict[str, Any] = {
        "rank_pattern": {"experts.down_proj": 3, "0.self_attn.q_proj": 2}, "alpha_pattern": {r".*1\.mlp.*": 5.0},
    }  # fmt: skip
    spec = spec_of(alpha_rule="fixed", **options)
    found = trained_by_both("mixtral", spec, checked("mixtral", spec), **options)
    np.testing.assert_allclose(found.ours.losses("r4"), found.losses, rtol=1e-9)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"target_parameters": ("experts.gate_proj",)}, "'experts.gate_proj' matches no parameter"),
        ({"target_parameters": ("q_proj.weight",)}, "q_proj.weight, which cannot take LoRA here"),
        ({"target_parameters": BOTH, "rank_pattern": {"gate_up_proj": 25}}, "at most rank 24"),
    ],
)
def test_parameters_that_cannot_be_adapted_are_refused(options: dict[str, Any], part: str) -> None:
    with pytest.raises(InputError, match=part):
        select_sets(make_model("mixtral"), spec_of(**options))
    with pytest.raises(InputError, match="leave target_parameters out"):
        select_sets(make_model("llama"), spec_of(target_parameters=("q_proj.weight",)))


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"lora_dropout": 0.1}, "lora_dropout is not 0"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights pissa is made for layers only"),
        ({"target_parameters": None, "expert_rank_rule": "per-expert-share"}, "no parameters of experts are adapted"),
    ],
)
def test_options_that_parameters_do_not_have_are_refused(options: dict[str, Any], part: str) -> None:
    with pytest.raises(SpecError, match=part):
        load_spec(None, {"target_parameters": BOTH} | options)


def test_experts_that_combine_in_another_way_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here their sum is doubled by a class of its own."""
    model = make_model("mixtral")
    kind = type(model.model.layers[0].mlp.experts)
    original = kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, *given: 2 * original(self, *given))
    with pytest.raises(InputError, match=r"MixtralExperts .* combines its experts in a way of its own"):
        check_model(spec_of(), model, make_splits().train, None)


def test_shape_counts_the_experts_of_a_token_and_stores_all() -> None:
    spec = spec_of(expert_rank_rule="per-expert-share")
    frozen = checked("gpt_oss", spec)
    shape = model_shape(frozen.model, frozen.layers, share=largest_share(frozen.layers))
    parts = {(part.n_in, part.n_out, part.count, part.stored) for part in shape.linears if part.stored}
    assert parts == {(24, 40, 2, 4), (20, 24, 2, 4)}
    assert shape.hidden_features == 2 * 2 * 20
    attention = sum(4 * sum(layer.features) for name, layer in frozen.layers.items() if "attn" in name)
    assert shape.adapter_parameters(4) == attention + 2 * 4 * 2 * (24 + 40 + 20 + 24)
