"""The chunked loss under a frozen head against Torch's own."""

import pytest
import torch
from torch.nn import functional as F

from lorascope.engine import loss
from lorascope.engine.loss import frozen_head_nats, trained_head_nats
from lorascope.modeling.backends.torch.backend import TORCH


def make_head(n: int, dtype: torch.dtype, *, vocabulary: int = 37, width: int = 8) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(2)
    hidden, weight = torch.randn(n, width, generator=g).to(dtype), torch.randn(vocabulary, width, generator=g).to(dtype)
    return hidden, weight, torch.randn(vocabulary, generator=g).to(dtype), torch.randint(vocabulary, (n,), generator=g)


@pytest.mark.parametrize("with_bias", [True, False])
def test_loss_and_gradient_equal_cross_entropy(monkeypatch: pytest.MonkeyPatch, with_bias: bool) -> None:
    monkeypatch.setattr(loss, "_CHUNK", 5)
    hidden, weight, bias, targets = make_head(13, torch.float64)
    bias = bias if with_bias else None
    ours, theirs = (hidden.clone().requires_grad_() for _ in range(2))
    weights = torch.rand(13, dtype=torch.float64)
    nats = frozen_head_nats(ours, weight, bias, targets, TORCH)
    expected = F.cross_entropy(F.linear(theirs, weight, bias), targets, reduction="none")
    (nats * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(nats, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-12)


def test_loss_gradcheck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "_CHUNK", 4)
    hidden, weight, bias, targets = make_head(6, torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: frozen_head_nats(x, weight, bias, targets, TORCH), hidden.requires_grad_()
    )


def test_loss_in_bfloat16_is_close_to_float32() -> None:
    """Logits of a language model's spread over a vocabulary of its size, summed as a study sums them."""
    hidden, weight, _, targets = make_head(512, torch.float32, vocabulary=20_000, width=64)
    hidden, weight = hidden.bfloat16(), (weight * 0.4).bfloat16()
    ours = frozen_head_nats(hidden, weight, None, targets, TORCH)
    exact = F.cross_entropy(hidden.double() @ weight.double().T, targets, reduction="none")
    assert ours.dtype == torch.float32
    assert ours.mean().item() == pytest.approx(exact.mean().item(), rel=1e-3)


def test_loss_of_huge_logits_is_finite() -> None:
    hidden, weight = torch.full((1, 1), 1e4), torch.tensor([[1.0], [-1.0]])
    nats = frozen_head_nats(hidden, weight, None, torch.tensor([1]), TORCH)
    assert nats.item() == pytest.approx(2e4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_likeliest_targets_are_those_of_the_whole_logits(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    monkeypatch.setattr(loss, "_CHUNK", 5)
    hidden, weight, bias, targets = make_head(60, dtype, vocabulary=4)
    hits = torch.zeros(60, dtype=torch.bool)
    with torch.no_grad():
        counted = frozen_head_nats(hidden, weight, bias, targets, TORCH, hits)
        plain = frozen_head_nats(hidden, weight, bias, targets, TORCH)
    assert torch.equal(counted, plain)
    assert torch.equal(hits, F.linear(hidden, weight, bias).argmax(1) == targets)
    assert 0 < hits.sum() < 60
    trained = torch.zeros(60, dtype=torch.bool)
    trained_head_nats(hidden, weight, bias, targets, trained)
    assert torch.equal(trained, hits)
