"""The multi-rank layer against PEFT and against finite differences."""

from typing import cast

import peft
import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lorascope.modeling.adapters.adapter import Adapter, AdapterShape, attach
from lorascope.modeling.adapters.dropout import DropoutStreams, realised_probability
from lorascope.modeling.adapters.lora import MultiLoraLinear
from lorascope.modeling.backends.torch.backend import TORCH
from lorascope.modeling.backends.torch.dropout import TorchDropout
from lorascope.modeling.packing.current import ActiveMicroBatch, active_microbatch
from lorascope.modeling.packing.packed_layout import BASE_ONLY, MicroBatchLayout

CPU = torch.device("cpu")
LENGTHS = (3, 2, 4, 1, 2)
OWNERS = (0, 0, 1, BASE_ONLY, 2)
RANKS = (1, 3, 8)
SCALES = (4.0, 0.5, 0.25)


@pytest.fixture(autouse=True)
def small_multiple(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few slots behind the rows, so that finite differences stay quick; there are some all the same."""
    monkeypatch.setattr("lorascope.modeling.packing.packed_layout.SLOT_MULTIPLE", 4)


def make_layout(*, padded: bool) -> MicroBatchLayout:
    return MicroBatchLayout(lengths=LENGTHS, adapters=OWNERS, padded=padded, device=CPU)


def make_base(kind: str, n_in: int = 6, n_out: int = 5) -> nn.Linear | Conv1D:
    torch.manual_seed(5)
    base = Conv1D(n_out, n_in) if kind == "conv1d" else nn.Linear(n_in, n_out, bias=kind == "linear")
    return base.double().requires_grad_(requires_grad=False)


def make_layer(kind: str, dropout: float) -> tuple[MultiLoraLinear, list[Adapter]]:
    layer = MultiLoraLinear(make_base(kind))
    adapters = [
        Adapter({"l": layer}, AdapterShape(rank=r, scale=s, dropout=dropout, seed=7), compute_dtype=torch.float64)
        for r, s in zip(RANKS, SCALES, strict=True)
    ]
    for i, adapter in enumerate(adapters):
        with torch.no_grad():  # B is zero at first, which would hide A's gradient
            adapter.layers["l"].B.normal_(generator=torch.Generator().manual_seed(i))
    attach({"l": layer}, adapters)
    return layer, adapters


def run(layer: MultiLoraLinear, x: torch.Tensor, *, padded: bool, dropout: bool) -> torch.Tensor:
    layout = make_layout(padded=padded)
    names = [(1, 2, row) for row in range(len(LENGTHS))]
    streams = DropoutStreams(names, lengths=LENGTHS, widths=layout.widths, backend=TORCH) if dropout else None
    with active_microbatch(ActiveMicroBatch(layout=layout, backend=TORCH, streams=streams)):
        return layer(x)


def make_input(*, padded: bool) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    shape = (len(LENGTHS), max(LENGTHS), 6) if padded else (1, make_layout(padded=False).n_slots, 6)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", ["linear", "no_bias", "conv1d"])
def test_multi_lora_gradcheck_with_dropout(kind: str, padded: bool) -> None:
    """4. The mask is fixed by its streams, which every call draws anew."""
    layer, adapters = make_layer(kind, dropout=0.5)
    leaves = [leaf for adapter in adapters for leaf in (adapter.layers["l"].A, adapter.layers["l"].B)]

    def function(x: torch.Tensor, *unused: torch.Tensor) -> torch.Tensor:
        del unused  # the layer holds them; gradcheck changes them in place
        return run(layer, x, padded=padded, dropout=True)

    x = make_input(padded=padded).requires_grad_()
    assert torch.autograd.gradcheck(function, (x, *leaves), eps=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", ["linear", "no_bias", "conv1d"])
def test_multi_lora_matches_peft_for_every_rank(kind: str) -> None:
    """4. PEFT's own layer, one adapter at a time, on that adapter's rows."""
    layer, adapters = make_layer(kind, dropout=0.0)
    x = make_input(padded=False).requires_grad_()
    y = run(layer, x, padded=False, dropout=False)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    y.backward(dy)
    layout = make_layout(padded=False)
    for index, first, stop in layout.segments:
        ours = adapters[index].layers["l"]
        theirs = peft_layer(kind, rank=RANKS[index], scale=SCALES[index], A=ours.A, B=ours.B)
        x_part = x.detach()[:, layout.slots(first, stop)].requires_grad_()
        y_part = theirs(x_part)
        y_part.backward(dy[:, layout.slots(first, stop)])
        weights = dict(theirs.named_parameters())
        torch.testing.assert_close(y[:, layout.slots(first, stop)], y_part, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(x.grad[:, layout.slots(first, stop)], x_part.grad, rtol=1e-12, atol=1e-12)
        for name, leaf in (("lora_A", ours.A), ("lora_B", ours.B)):
            grad = weights[f"base_model.model.l.{name}.default.weight"].grad
            torch.testing.assert_close(leaf.grad, grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["linear", "no_bias", "conv1d"])
def test_multi_lora_keeps_small_updates_in_bfloat16(kind: str) -> None:
    """Added to a result that is rounded already, half of an update of a thousandth of it would be lost."""
    base = make_base(kind, 64, 512).bfloat16()
    layer = MultiLoraLinear(base)
    weight = layer.kind.weight(base)
    weight.normal_(std=1 / 8, generator=torch.Generator().manual_seed(0))
    shapes = [AdapterShape(rank=rank, scale=0.7, dropout=0.0, seed=0) for rank in (1, 8)]
    adapters = [Adapter({"l": layer}, shape, compute_dtype=torch.bfloat16) for shape in shapes]
    for adapter in adapters:
        with torch.no_grad():
            adapter.layers["l"].B.normal_(std=1.5e-3, generator=torch.Generator().manual_seed(1))
    attach({"l": layer}, adapters)
    layout = MicroBatchLayout(lengths=(100, 60, 50), adapters=(0, BASE_ONLY, 1), padded=False, device=CPU)
    x = torch.randn(1, layout.n_slots, 64, generator=torch.Generator().manual_seed(2)).bfloat16()
    with active_microbatch(ActiveMicroBatch(layout=layout, backend=TORCH)):
        y = layer(x)[0].double()
    frozen = x[0].double() @ weight.double().T + (0 if base.bias is None else base.bias.double())
    for index, first, stop in layout.segments:
        own, A, B = layout.slots(first, stop), adapters[index].layers["l"].A, adapters[index].layers["l"].B
        update = 0.7 * x[0, own].double() @ A.double().T @ B.double().T
        assert update.norm() < 3e-3 * frozen[own].norm()
        assert abs(((y - frozen)[own] * update).sum() / update.square().sum() - 1) < 0.05
    assert torch.equal(y[100:160], base(x)[0, 100:160].double())


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
def test_multi_lora_keeps_hooks_of_a_bfloat16_layer(kind: str) -> None:
    base = make_base(kind, 64, 32).bfloat16()
    base.register_forward_hook(lambda module, inputs, output: 2 * output)
    layer = MultiLoraLinear(base)
    adapter = Adapter(
        {"l": layer}, AdapterShape(rank=2, scale=1, dropout=0, seed=0), compute_dtype=torch.bfloat16
    )  # B is zero: no update
    attach({"l": layer}, [adapter])
    layout = MicroBatchLayout(lengths=(4, 4), adapters=(BASE_ONLY, 0), padded=False, device=CPU)
    x = torch.randn(1, layout.n_slots, 64, generator=torch.Generator().manual_seed(2)).bfloat16()
    with active_microbatch(ActiveMicroBatch(layout=layout, backend=TORCH)):
        assert torch.equal(layer(x), base(x))


class Holder(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.l = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.l(x)


def peft_layer(kind: str, *, rank: int, scale: float, A: torch.Tensor, B: torch.Tensor) -> nn.Module:
    model = Holder(make_base(kind))
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=cast("int", scale * rank),
        target_modules=["l"],
        fan_in_fan_out=kind == "conv1d",
        lora_dropout=0.0,
    )
    wrapped = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, value in (("lora_A", A), ("lora_B", B)):
            wrapped.get_parameter(f"base_model.model.l.{name}.default.weight").data = value.detach().clone()
    return wrapped


def test_multi_lora_rows_without_adapter_get_the_base_layer() -> None:
    layer, _ = make_layer("linear", dropout=0.0)
    x = make_input(padded=False)
    layout = make_layout(padded=False)
    alone = layout.slots(3, 4)
    assert torch.equal(run(layer, x, padded=False, dropout=False)[:, alone], layer.base(x)[:, alone])


def keep_mask(
    features: int, p: float, *, names: list[tuple[int, int, int]], lengths: tuple[int, ...], widths: tuple[int, ...]
) -> torch.Tensor:
    streams = DropoutStreams(names, lengths=lengths, widths=widths, backend=TORCH)
    drawn = streams.rows(0, len(names)).at(0, p)
    assert isinstance(drawn, TorchDropout)
    return drawn.keep_mask(features)


def test_multi_lora_dropout_keeps_mean_and_rate() -> None:
    p = 0.1
    mask = keep_mask(100, p, names=[(0, 0, 0)], lengths=(4000,), widths=(4000,))
    share = 1 - mask.double().mean().item()
    assert abs(realised_probability(p) - p) < 1e-5
    assert abs(share - p) < 5 * (p * (1 - p) / mask.numel()) ** 0.5
    columns = mask.double().mean(0)
    assert columns.std() < 1.3 * (p * (1 - p) / 4000) ** 0.5


def test_multi_lora_dropout_leaves_padding() -> None:
    def mask(widths: tuple[int, ...]) -> torch.Tensor:
        return keep_mask(6, 0.5, names=[(0, 1, 2), (0, 1, 3)], lengths=LENGTHS[:2], widths=widths)

    packed, padded = mask(LENGTHS[:2]), mask((4, 4)).view(2, 4, 6)
    assert torch.equal(torch.cat([padded[0, :3], padded[1, :2]]), packed)
    assert padded[0, 3:].all()
    assert padded[1, 2:].all()


def test_lora_initialisation_of_a_smaller_rank_is_a_prefix() -> None:
    layer = MultiLoraLinear(make_base("linear"))
    small, large = (
        Adapter({"l": layer}, AdapterShape(rank=r, scale=1.0, dropout=0.0, seed=3), compute_dtype=torch.float32)
        for r in (2, 5)
    )
    assert torch.equal(small.layers["l"].A, large.layers["l"].A[:2])
    bound = 6**-0.5
    assert large.layers["l"].A.abs().max() < bound
    assert not large.layers["l"].B.any()


def test_lora_initialisation_has_the_distribution_of_peft() -> None:
    layer = MultiLoraLinear(nn.Linear(400, 3).requires_grad_(requires_grad=False))
    A = (
        Adapter({"l": layer}, AdapterShape(rank=300, scale=1.0, dropout=0.0, seed=1), compute_dtype=torch.float32)
        .layers["l"]
        .A
    )
    theirs = torch.empty(300, 400)
    nn.init.kaiming_uniform_(theirs, a=5**0.5, generator=torch.Generator().manual_seed(0))
    assert A.std().item() == pytest.approx(theirs.std().item(), rel=0.01)
    assert A.abs().max().item() == pytest.approx(theirs.abs().max().item(), rel=0.001)


def test_multi_lora_refuses_a_layer_that_sees_some_tokens_only() -> None:
    from lorascope.errors import InputError

    layer, _ = make_layer("linear", dropout=0.0)
    with pytest.raises(InputError, match="sees 5 of the 20 tokens"):
        run(layer, make_input(padded=False)[:, :5], padded=False, dropout=False)
