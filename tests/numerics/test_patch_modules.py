"""A model with the compiled kernels in place of its own operations, against the same model without."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen2Config
from transformers.activations import ACT2FN
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm
from transformers.models.mistral.modeling_mistral import MistralRMSNorm

from lorascope.engine.forward import FrozenModel, MicroBatchRow
from lorascope.engine.trial import TrainingTrial
from lorascope.engine.verify import prepare_model
from lorascope.message import Message
from lorascope.modeling.adapters.adapter import attach
from lorascope.modeling.backends.cpu import backend
from lorascope.modeling.backends.cpu.bindings import Kernels
from lorascope.modeling.backends.cpu.patch_modules import patch
from lorascope.modeling.backends.protocol import unpatch
from lorascope.modeling.load import hash_weights
from lorascope.modeling.packing.packed_layout import BASE_ONLY
from lorascope.search.trials import plan_trials
from support.groups import make_spec, prepared, run_group
from support.messages import ASKED
from support.references import random
from support.tiny_models import TARGETS, VOCABULARY, make_examples, make_model, make_splits

KINDS = ["llama", "opt", "gpt2", "mistral"]
ROWS = make_examples(7, seed=6, longest=70)


@pytest.fixture
def exact_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute norms in float64 where the model is; Transformers' own go through float32, and stay their own then."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)

    for norm in (LlamaRMSNorm, MistralRMSNorm):
        monkeypatch.setattr(norm, "forward", forward)


def replaced(model: nn.Module) -> dict[str, int]:
    """How many modules of each class have another forward than their class."""
    names = [type(module).__name__ for module in model.modules() if "forward" in vars(module)]
    return {name: names.count(name) for name in set(names)}


def both_ways(
    kind: str, *, dtype: torch.dtype = torch.float64, packing: bool = True
) -> tuple[FrozenModel, FrozenModel]:
    with_kernels, without = (prepared(kind, dtype=dtype, packing=packing, kernels=kernels) for kernels in (True, False))
    return with_kernels, without


def logits(frozen: FrozenModel) -> torch.Tensor:
    return torch.cat(frozen.logits([MicroBatchRow(example=row, adapter=BASE_ONLY) for row in ROWS]))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("llama", {"LlamaRMSNorm": 5, "LlamaMLP": 2, "LlamaAttention": 2}),
        # its attention has a window of which the layer does not tell
        ("mistral", {"MistralRMSNorm": 5, "MistralMLP": 2}),
        # 1 + weight, another activation, and caps on scores
        ("gemma2", {}),
        ("opt", {}),
        ("gpt2", {}),
        ("bloom", {}),
    ],
)
def test_patched_modules_of_each_model(own_kernels: Kernels, kind: str, expected: dict[str, int]) -> None:
    frozen, reasons = prepare_model(
        make_model(kind, torch.float32), TARGETS[kind], make_splits().train, packing=True, kernels=True
    )
    assert replaced(frozen.model) == expected
    # even where no module is replaced there are attention, dropout and loss
    assert frozen.accelerated
    assert reasons.kernels.values["modules"] == sum(expected.values())
    assert (reasons.packing == Message("packing.agrees")) == frozen.packing


ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def first_gradient(model: PreTrainedModel, targets: tuple[str, ...], *, kernels: bool) -> torch.Tensor:
    frozen, _ = prepare_model(model, targets, make_splits().train, packing=True, kernels=kernels)
    trial = TrainingTrial(plan_trials(make_spec())[0], make_spec(), frozen.layers, model.dtype)
    with torch.no_grad():  # B is zero at first, which would hide A's gradient
        trial.adapter.flat.copy_(0.05 * random(len(trial.adapter.flat), dtype=torch.float64))
    attach(frozen.layers, [trial.adapter])
    rows = [
        MicroBatchRow(example=row, adapter=0, stream=(0, 5, i)) for i, row in enumerate(make_examples(5, longest=70))
    ]
    torch.cat(frozen.row_nats(rows)).sum().backward()
    return trial.adapter.flat.grad.double()


@pytest.mark.parametrize("targets", [TARGETS["llama"], ALL_LINEAR], ids=["some", "all"])
@pytest.mark.parametrize("width", [24, 64])
def test_patched_bfloat16_layers_add_residuals_in_float32(
    own_kernels: Kernels, targets: tuple[str, ...], width: int
) -> None:
    """Of a width that the kernels multiply and of one that Torch does, adapters in what adds to the stream or not."""
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_attention_heads": 4, "head_dim": width // 4}
    model = make_model("llama", torch.bfloat16, **sizes)
    exact = first_gradient(copy.deepcopy(model).double(), targets, kernels=False)
    plain = first_gradient(copy.deepcopy(model), targets, kernels=False)
    ours = first_gradient(model, targets, kernels=True)
    assert replaced(model)["LlamaDecoderLayer"] == 2
    assert (ours - exact).norm() < 0.95 * (plain - exact).norm() < 0.1 * exact.norm()


def test_layers_with_hooks_or_other_dtypes_keep_their_residual_sums(own_kernels: Kernels) -> None:
    """One hears when its attention ends, one scales by a parameter that is 1 at first, and one is taken."""
    model = make_model("llama", torch.bfloat16, num_hidden_layers=3)
    heard: list[nn.Module] = []
    model.model.layers[0].self_attn.register_forward_hook(lambda module, *_: heard.append(module))
    model.model.layers[1].scale = nn.Parameter(torch.ones(1), requires_grad=False)
    frozen, _ = prepare_model(model, None, make_splits().train, packing=True, kernels=True)
    assert replaced(model)["LlamaDecoderLayer"] == 1
    heard.clear()
    logits(frozen)
    assert heard == [model.model.layers[0].self_attn]


class ScaledLayer(LlamaDecoderLayer):
    """Looks like a Llama's and adds up otherwise, as Granite's does."""

    def forward(self, hidden_states: torch.Tensor, **named: Any) -> torch.Tensor:
        return hidden_states + 0.5 * (super().forward(hidden_states, **named) - hidden_states)


def test_layers_with_other_residual_sums_are_not_patched(own_kernels: Kernels) -> None:
    model = make_model("llama", torch.bfloat16)
    for layer in model.model.layers:
        layer.__class__ = ScaledLayer
    frozen, _ = prepare_model(model, None, make_splits().train, packing=True, kernels=True)
    assert frozen.packing
    assert replaced(model) == {"LlamaRMSNorm": 5, "LlamaMLP": 2, "LlamaAttention": 2}


@pytest.mark.usefixtures("exact_norms")
@pytest.mark.parametrize("kind", KINDS)
def test_patched_logits_and_gradients_equal_unpatched(own_kernels: Kernels, kind: str) -> None:
    found = []
    for frozen in both_ways(kind):
        trial = TrainingTrial(plan_trials(make_spec())[0], make_spec(), frozen.layers, torch.float64)
        with torch.no_grad():  # B is zero at first, which would hide A's gradient
            trial.adapter.flat.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
        attach(frozen.layers, [trial.adapter])
        rows = [
            MicroBatchRow(example=row, adapter=0, stream=(0, 5, i))
            for i, row in enumerate(make_examples(5, longest=70))
        ]
        torch.cat(frozen.row_nats(rows)).sum().backward()
        found.append((logits(frozen), trial.adapter.flat.grad))
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("exact_norms")
@pytest.mark.parametrize("kind", KINDS)
def test_patched_training_equals_unpatched(own_kernels: Kernels, kind: str) -> None:
    """Dropout included: both draw the same masks."""
    ours, plain = (run_group(make_spec(), frozen=frozen) for frozen in both_ways(kind))
    for trial in ("r2", "r4", "r8"):
        assert len(plain.losses(trial)) == 6
        np.testing.assert_allclose(ours.losses(trial), plain.losses(trial), rtol=1e-10)
        np.testing.assert_allclose(ours.eval_nats(trial), plain.eval_nats(trial), rtol=1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 3e-2)], ids=str)
@pytest.mark.parametrize("packing", [True, False])
def test_patched_error_is_that_of_the_model_s_own_operations(
    own_kernels: Kernels, dtype: torch.dtype, tolerance: float, packing: bool
) -> None:
    """Packed, and padded, where rows have attention of their own."""
    model = make_model("llama", dtype).double()
    exact = torch.cat([model(torch.from_numpy(row.input_ids)[None]).logits[0] for row in ROWS])
    shares = []
    for frozen in both_ways("llama", dtype=dtype, packing=packing):
        assert frozen.packing == packing
        shares.append(((logits(frozen).double() - exact).norm() / exact.norm()).item())
    assert replaced(prepared("llama", dtype=dtype, packing=packing).model)["LlamaRMSNorm"] == 5
    assert max(shares) < tolerance
    assert shares[0] < 1.5 * shares[1]


def make_qwen(dtype: torch.dtype) -> Any:
    """A model whose second layer tells of its window."""
    torch.manual_seed(3)
    config = Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=100, use_sliding_window=True, sliding_window=5,
        max_window_layers=1, layer_types=["full_attention", "sliding_attention"], initializer_range=0.3,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config).to(dtype).requires_grad_(requires_grad=False).eval()


def test_patched_layer_keeps_its_sliding_window(own_kernels: Kernels) -> None:
    frozen, _ = prepare_model(make_qwen(torch.float32), None, make_splits().train, packing=True, kernels=True)
    assert replaced(frozen.model)["Qwen2Attention"] == 2
    model = make_qwen(torch.float32).double()
    exact = torch.cat([model(torch.from_numpy(row.input_ids)[None]).logits[0] for row in ROWS])
    assert (logits(frozen) - exact).norm() / exact.norm() < 2e-5


def test_layer_whose_window_is_only_in_the_config_is_not_patched(own_kernels: Kernels) -> None:
    model = make_qwen(torch.float32)
    del model.model.layers[1].self_attn.sliding_window
    patch(model, own_kernels, "attention")
    assert replaced(model)["Qwen2Attention"] == 1


def test_patching_keeps_weights_and_restores_forwards(own_kernels: Kernels) -> None:
    model, own = make_model("llama", torch.float32), lambda x: x
    model.model.norm.forward = own  # somebody else's
    names, weights = list(model.state_dict()), hash_weights(model)
    changed = patch(model, own_kernels, "attention")
    assert len(changed) == 8
    assert list(model.state_dict()) == names
    assert hash_weights(model) == weights
    unpatch(changed)
    assert [name for name, module in model.named_modules() if "forward" in vars(module)] == ["model.norm"]
    assert model.model.norm.forward is own


class OffsetRMSNorm(LlamaRMSNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)


class TwoTensorRMSNorm(LlamaRMSNorm):
    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return super().forward(x + residual)


class Gated(nn.Module):
    """As most feed-forward layers are, with weights so small that its inputs stay near 0."""

    def __init__(self, activation: str | Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(8, 12, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(12, 8, bias=False)
        for part in (self.gate_proj, self.up_proj, self.down_proj):
            nn.init.normal_(part.weight, std=1e-3, generator=torch.Generator().manual_seed(0))
        self.act_fn = ACT2FN[activation] if isinstance(activation, str) else activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


class Halved(Gated):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x / 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("make", "taken"),
    [
        (lambda: LlamaRMSNorm(8), True),
        (lambda: nn.RMSNorm(8, eps=1e-5), True),
        (lambda: nn.RMSNorm(8), False),  # its eps follows the precision
        (lambda: nn.RMSNorm((2, 4), eps=1e-5), False),
        (lambda: OffsetRMSNorm(8), False),
        (lambda: TwoTensorRMSNorm(8), False),
        (lambda: nn.LayerNorm(8), False),
        (lambda: Gated("silu"), True),
        (lambda: Gated(nn.functional.silu), True),
        (lambda: Gated("gelu_pytorch_tanh"), False),
        (lambda: Gated(torch.add), False),
        (lambda: Halved("silu"), False),
    ],
)
def test_similar_modules_are_not_patched(
    own_kernels: Kernels, make: Callable[[], nn.Module], taken: bool, dtype: torch.dtype
) -> None:
    module = make().to(dtype).requires_grad_(requires_grad=False)
    assert patch(module, own_kernels, "attention") == [module] * taken


def test_trainable_norm_is_not_patched(own_kernels: Kernels) -> None:
    assert patch(LlamaRMSNorm(8), own_kernels, "attention") == []


def test_patched_norm_keeps_its_own_forward_for_another_dtype(own_kernels: Kernels) -> None:
    """As where a model adds up in float32 under weights in bfloat16."""
    norm = LlamaRMSNorm(8).bfloat16().requires_grad_(requires_grad=False)
    x = torch.randn(3, 8)
    expected = norm(x)
    assert patch(norm, own_kernels, "attention") == [norm]
    assert torch.equal(norm(x), expected)


def test_kernels_with_other_logits_are_rejected(own_kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Kernels.attention_forward

    def wrong(*arguments: Any, **named: Any) -> tuple[torch.Tensor, torch.Tensor]:
        out, log_sums = right(*arguments, **named)
        return out * 1.5, log_sums

    monkeypatch.setattr(Kernels, "attention_forward", wrong)
    frozen, reasons = prepare_model(
        make_model("llama", torch.float32), None, make_splits().train, packing=True, kernels=True
    )
    assert not frozen.accelerated
    assert frozen.packing
    assert reasons.kernels.code == "kernels.differ"
    assert replaced(frozen.model) == {}


def test_kernels_that_fail_are_rejected(own_kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*arguments: Any, **named: Any) -> None:
        raise RuntimeError("what is this?\nmore")

    monkeypatch.setattr(Kernels, "attention_forward", wrong)
    frozen, reasons = prepare_model(
        make_model("llama", torch.float32), None, make_splits().train, packing=True, kernels=True
    )
    assert not frozen.accelerated
    assert reasons.kernels == Message("kernels.refused", error="what is this?")
    assert replaced(frozen.model) == {}


@pytest.mark.parametrize("packing", [True, False])
def test_missing_kernels_leave_the_model_unpatched(monkeypatch: pytest.MonkeyPatch, packing: bool) -> None:
    monkeypatch.setattr(backend, "load_kernels", lambda: (None, Message("kernels.no_compiler")))
    frozen, reasons = prepare_model(
        make_model("llama", torch.float32), None, make_splits().train, packing=packing, kernels=True
    )
    assert (frozen.accelerated, reasons.kernels) == (False, Message("kernels.no_compiler"))
    assert replaced(frozen.model) == {}
    kept = run_group(make_spec(), frozen=frozen)
    assert [len(kept.losses(trial)) for trial in ("r2", "r4", "r8")] == [6, 6, 6]


def test_kernels_are_used_only_if_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "load_kernels", lambda: pytest.fail("nobody asked for kernels"))
    frozen, reasons = prepare_model(
        make_model("llama", torch.float32), None, make_splits().train, packing=True, kernels=False
    )
    assert (frozen.accelerated, reasons.kernels) == (False, ASKED)
