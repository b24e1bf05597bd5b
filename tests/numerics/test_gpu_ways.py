"""The operations that only a GPU's pass takes, in Torch's arithmetic on the CPU."""

import pytest
import torch

from lorascope.modeling.adapters.linear_kinds.registry import find_kind
from lorascope.modeling.backends.protocol import AdaptedLinear, LayerAdapter, Segment
from lorascope.modeling.backends.torch import attention
from lorascope.modeling.backends.torch.multi_lora import _updated_in_float32
from lorascope.modeling.packing.length_buckets import group_rows


@pytest.mark.parametrize("window", [None, 5])
def test_fused_attention_is_that_of_scores(monkeypatch: pytest.MonkeyPatch, window: int | None) -> None:
    lengths, generator = (9, 30, 17, 28), torch.Generator().manual_seed(0)
    starts = [0, 9, 39, 56]
    groups = group_rows(lengths, starts, torch.device("cpu"))
    heads = [torch.randn(84, n, 8, generator=generator, dtype=torch.float64) for n in (6, 2, 2)]

    def attended() -> tuple[torch.Tensor, ...]:
        own = [head.clone().requires_grad_() for head in heads]
        out = attention.attend_in_groups(own[0], own[1], own[2], groups, scaling=0.3, window=window)
        return out, *torch.autograd.grad(out.sin().sum(), own)

    by_scores = attended()
    monkeypatch.setattr(attention, "LONG_ROW", 0)
    for fused, scores in zip(attended(), by_scores, strict=True):
        torch.testing.assert_close(fused, scores, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_float32_product_keeps_small_updates(monkeypatch: pytest.MonkeyPatch, bias: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    base = torch.nn.Linear(64, 96, bias=bias, dtype=torch.bfloat16)
    for parameter in base.parameters():
        parameter.requires_grad = False
    kind = find_kind(base)
    assert kind is not None
    x = torch.randn(40, 64, generator=generator).bfloat16()
    segments, hidden = [], []
    for first, rank in ((0, 4), (16, 32)):
        A, B = torch.randn(rank, 64, generator=generator), 1e-4 * torch.randn(96, rank, generator=generator)
        adapter = LayerAdapter(A=A, B=B, scale=1.0, dropout=0.0)
        segments.append(Segment(adapter=adapter, slots=slice(first, first + 16), factor=0.5, dropout=None))
        hidden.append(x[first : first + 16] @ A.bfloat16().T)
    layer = AdaptedLinear(base=base, kind=kind, segments=segments)
    plain = torch.mm
    # CPUs have no product with a wider result
    monkeypatch.setattr(torch, "mm", lambda a, b, out_dtype: plain(a.to(out_dtype), b.to(out_dtype)))
    found = _updated_in_float32(layer, kind.weight(base), base.bias, hidden, x)
    wanted = torch.nn.functional.linear(x.double(), base.weight.double(), base.bias.double() if bias else None)
    for segment, h in zip(segments, hidden, strict=True):
        own, update = segment.slots, 0.5 * h.double() @ segment.adapter.B.double().T
        assert update.norm() < 1e-2 * wanted[own].norm()
        assert abs(((found.double() - wanted)[own] * update).sum() / update.square().sum() - 1) < 0.05
    # rows of no segment: a float32 sum beside the middle of two bfloat16 numbers may be rounded to either
    torch.testing.assert_close(found[32:], wanted[32:].bfloat16(), rtol=2**-7, atol=1e-6)
