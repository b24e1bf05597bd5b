"""Linear layers that carry adapters: a new kind takes one file and one line in the registry."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from lorascope.costmodel.shapes import model_shape
from lorascope.engine.verify import prepare_model
from lorascope.errors import InputError
from lorascope.modeling.adapters.adapter import Adapter, AdapterShape, attach
from lorascope.modeling.adapters.linear_kinds.registry import KINDS, find_kind
from lorascope.modeling.adapters.lora import MultiLoraLinear
from lorascope.modeling.adapters.peft_io import merge_peft, save_peft
from lorascope.modeling.backends.torch.backend import TORCH
from lorascope.modeling.packing.current import ActiveMicroBatch, active_microbatch
from lorascope.modeling.packing.packed_layout import BASE_ONLY, MicroBatchLayout
from lorascope.modeling.targets import find_targets
from support.groups import make_spec, prepared, run_group
from support.int8_linear import Int8Kind, Int8Linear
from support.kernels import kernels_of
from support.tiny_models import make_model, make_splits

QUANTISED = ("q_proj", "k_proj", "v_proj", "up_proj")


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one line."""
    monkeypatch.setattr("lorascope.modeling.adapters.linear_kinds.registry.KINDS", [Int8Kind(), *KINDS])


def quantised(*, dense: bool) -> PreTrainedModel:
    """A Llama with some layers in int8, or with the same weights in ``nn.Linear``."""
    model = make_model("llama", torch.float64)
    for name, module in list(model.named_modules()):
        parent, _, own = name.rpartition(".")
        if own in QUANTISED and isinstance(module, nn.Linear):
            layer = Int8Linear(module)
            if dense:
                module.weight.data = layer.dequantised()
            else:
                setattr(model.get_submodule(parent), own, layer)
    return model


def test_a_layer_of_a_new_kind_is_a_target() -> None:
    model = quantised(dense=False)
    assert find_targets(model, None) == find_targets(quantised(dense=True), None)
    assert find_targets(model, "all-linear") == find_targets(quantised(dense=True), "all-linear")
    shapes = [model_shape(m, find_targets(m, None)) for m in (model, quantised(dense=True))]
    assert shapes[0].linears == shapes[1].linears
    assert find_kind(nn.Embedding(3, 4)) is None


def test_gradients_of_its_adapters_and_inputs_are_right() -> None:
    """Against finite differences, in float64, with rows of two adapters and of none."""
    layer = MultiLoraLinear(Int8Linear(nn.Linear(6, 5).double().requires_grad_(requires_grad=False)))
    shapes = [AdapterShape(rank=rank, scale=2.0, dropout=0.0, seed=rank) for rank in (1, 3)]
    adapters = [Adapter({"l": layer}, shape, compute_dtype=torch.float64) for shape in shapes]
    for adapter in adapters:
        with torch.no_grad():  # B is zero at first, which would hide A's gradient
            adapter.flat.normal_(generator=torch.Generator().manual_seed(adapter.shape.rank))
    attach({"l": layer}, adapters)
    layout = MicroBatchLayout(lengths=(3, 2, 3), adapters=(0, BASE_ONLY, 1), padded=True, device=torch.device("cpu"))
    leaves = [leaf for adapter in adapters for leaf in (adapter.layers["l"].A, adapter.layers["l"].B)]

    def function(x: torch.Tensor, *unused: torch.Tensor) -> torch.Tensor:
        del unused  # the layer holds them; gradcheck changes them in place
        with active_microbatch(ActiveMicroBatch(layout=layout, backend=TORCH)):
            y: torch.Tensor = layer(x)
            return y

    x = torch.randn(3, 3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert torch.autograd.gradcheck(function, (x, *leaves))


@pytest.mark.parametrize("kernels", [False, True])
def test_a_group_trains_over_it_as_over_the_same_weights_stored_whole(kernels: bool) -> None:
    if kernels:
        kernels_of("own")
    ours, dense = (
        run_group(
            make_spec(),
            frozen=prepare_model(quantised(dense=dense), QUANTISED, make_splits().train, packing=True, kernels=kernels)[
                0
            ],
        )
        for dense in (False, True)
    )
    for trial in ("r2", "r4", "r8"):
        np.testing.assert_allclose(ours.losses(trial), dense.losses(trial), rtol=1e-10)
        np.testing.assert_allclose(ours.eval_nats(trial), dense.eval_nats(trial), rtol=1e-10)


def test_an_adapter_is_not_merged_into_a_weight_that_is_stored_otherwise(tmp_path: Path) -> None:
    frozen = prepared("llama")
    adapter = Adapter(frozen.layers, AdapterShape(rank=2, scale=1.0, dropout=0.0, seed=0), compute_dtype=torch.float64)
    save_peft(tmp_path, adapter.layers, frozen.layers, base="a", rank=2, lora_alpha=2, rslora=False, dropout=0.0)
    with pytest.raises(InputError, match=r"cannot be merged into \S*q_proj, which .* \(Int8Linear\)"):
        merge_peft(quantised(dense=False), tmp_path)
