"""Which errors lead to a slower way of computing a model: the model's own, never those of this package."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AttentionInterface
from transformers.models.llama.modeling_llama import LlamaModel

from lorascope.engine.verify import prepare_model
from lorascope.message import Message
from lorascope.modeling.backends.cpu import autograd
from lorascope.modeling.backends.torch import attention
from lorascope.modeling.packing.attention import PACKED, packed_attention
from support.kernels import kernels_of
from support.tiny_models import make_examples, make_model

ROWS = make_examples(9)


@pytest.mark.parametrize("error", [KeyError("no such cache"), TypeError("unexpected"), AttributeError("none")])
def test_a_model_that_refuses_packed_rows_is_padded(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    own = LlamaModel.forward

    def forward(self: LlamaModel, *arguments: object, **named: object) -> object:
        if named.get("position_ids") is not None:
            raise error
        return own(self, *arguments, **named)

    monkeypatch.setattr(LlamaModel, "forward", forward)
    frozen, reasons = prepare_model(make_model("llama", torch.float32), None, ROWS, packing=True, kernels=False)
    assert not frozen.packing
    assert reasons.packing == Message("packing.refused", error=str(error))


def test_a_model_whose_values_have_other_features_is_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its heads are none that packed attention takes, which the attention says by an error of its own."""

    def narrow(
        module: nn.Module, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *rest: Any, **named: Any
    ) -> object:
        return packed_attention(module, q, k, v[..., :-1], *rest, **named)

    monkeypatch.setitem(AttentionInterface._global_mapping, PACKED, narrow)
    frozen, reasons = prepare_model(make_model("llama", torch.float32), None, ROWS, packing=True, kernels=False)
    assert not frozen.packing
    assert reasons.packing.code == "packing.refused"
    assert "queries, keys and values of shapes" in str(reasons.packing.values["error"])


@pytest.mark.parametrize(
    ("kernels", "module", "function"), [(True, autograd, "kernel_rows"), (False, attention, "_causal_mask")]
)
@pytest.mark.parametrize("bug", [None, {}.__getitem__], ids=["type", "key"])
def test_a_bug_of_this_package_is_raised(
    monkeypatch: pytest.MonkeyPatch, kernels: bool, module: object, function: str, bug: Callable[..., object] | None
) -> None:
    if kernels:
        kernels_of("own")
    monkeypatch.setattr(module, function, bug)
    with pytest.raises((TypeError, KeyError)):
        prepare_model(make_model("llama", torch.float32), None, ROWS, packing=True, kernels=kernels)
