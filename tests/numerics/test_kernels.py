"""Norms, gated layers and cross entropy as compiled, against the same in plain operations."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lorascope.modeling.backends.cpu.autograd import GatedFeedForward, ResidualNorm, RmsNorm, RowAttention, SiluMul
from lorascope.modeling.backends.cpu.bindings import Kernels
from lorascope.modeling.backends.cpu.ctypes_structs import AttentionPlan
from support.references import TOLERANCE, make_rows, random, relative, results_and_gradients

EPS = 1e-5
WIDTHS = [5, 16, 100, 576]
"""Below the 16 lanes of a vector, just those, and with and without a rest."""
DTYPES = [torch.float64, torch.float32, torch.bfloat16]
NAN, INF = math.nan, math.inf
SMALLEST = 1e-34
"""Exponentials below exp(-87) are 0 in float32."""


def rms_norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * weight


def test_kernels_gradcheck(kernels: Kernels) -> None:
    for width in (5, 33):
        weight = random(width, dtype=torch.float64, seed=1)
        x, gate = (random(2, 3, width, dtype=torch.float64, seed=seed).requires_grad_() for seed in (2, 3))
        assert torch.autograd.gradcheck(lambda x, w=weight: RmsNorm.apply(x, w, EPS, kernels), x)
        assert torch.autograd.gradcheck(lambda gate, x: SiluMul.apply(gate, x, kernels), (gate, x))


@pytest.mark.parametrize("bias", [False, True])
def test_gated_layer_kernel(own_kernels: Kernels, bias: bool) -> None:
    """Against finite differences, and in its own precision against the layer in plain operations."""
    torch.manual_seed(0)
    parts = [nn.Linear(7, 10, bias), nn.Linear(7, 10, bias), nn.Linear(10, 7, bias)]
    gate, up, down = (part.double().requires_grad_(requires_grad=False) for part in parts)
    x, grad = (random(2, 3, 7, dtype=torch.float64, seed=seed) for seed in (1, 2))

    def layer(x: torch.Tensor) -> torch.Tensor:
        return GatedFeedForward.apply(x, gate, up, down, own_kernels, None)

    assert torch.autograd.gradcheck(layer, x.requires_grad_())
    found = results_and_gradients(layer, [x], grad)
    expected = results_and_gradients(lambda x: down(F.silu(gate(x)) * up(x)), [x], grad)
    assert max(map(relative, found, expected)) < TOLERANCE[torch.float64]
    found = results_and_gradients(layer, [x[0]], grad[0])
    assert max(map(relative, found, [whole[0] for whole in expected])) < TOLERANCE[torch.float64]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_norm_kernels(kernels: Kernels, dtype: torch.dtype, width: int) -> None:
    x, grad = (random(7, width, dtype=dtype, seed=seed) for seed in (1, 2))
    weight = random(width, dtype=dtype, seed=3)
    found = results_and_gradients(lambda x: RmsNorm.apply(x, weight, EPS, kernels), [x], grad)
    expected = results_and_gradients(lambda x: rms_norm(x, weight.double()), [x.double()], grad)
    assert max(map(relative, found, expected)) < TOLERANCE[dtype]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gate_kernels(kernels: Kernels, dtype: torch.dtype, width: int) -> None:
    gate, up, grad = (random(7, width, dtype=dtype, seed=seed) for seed in (1, 2, 3))
    gate = gate * 6  # also where a sigmoid is nearly 0 or 1
    found = results_and_gradients(lambda gate, up: SiluMul.apply(gate, up, kernels), [gate, up], grad)
    expected = results_and_gradients(lambda gate, up: F.silu(gate) * up, [gate.double(), up.double()], grad)
    assert max(map(relative, found, expected)) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gate_kernels_over_all_magnitudes(kernels: Kernels, dtype: torch.dtype) -> None:
    """Each number by itself: a norm would not see the small ones."""
    gate = torch.cat([torch.linspace(-80, 80, 3201), torch.tensor([-3e38, -1e4, 1e-30, -1e-30, 0.0, 1e4, 3e38])])
    gate = gate.to(dtype)
    ones = torch.ones_like(gate)
    found = results_and_gradients(lambda gate: SiluMul.apply(gate, ones, kernels), [gate], ones)
    expected = results_and_gradients(F.silu, [gate.double()], ones)
    equal = partial(torch.testing.assert_close, rtol=TOLERANCE[dtype])
    equal(found[0].double(), expected[0], atol=SMALLEST)
    # the slope is 0 at -1.278, where what rounding leaves is large beside it
    equal(found[1].double(), expected[1], atol=TOLERANCE[dtype] / 10)
    steep = (gate < -2) | (gate > 0)
    equal(found[1][steep].double(), expected[1][steep], atol=SMALLEST)


def test_kernels_take_unaligned_inputs(kernels: Kernels) -> None:
    both, weight = random(7, 2 * 20, dtype=torch.float32), random(20, dtype=torch.float32, seed=1)
    gate, up = both.chunk(2, dim=-1)

    def both_kernels(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        return SiluMul.apply(gate, RmsNorm.apply(up, weight, EPS, kernels), kernels)

    expected = both_kernels(gate.clone(), up.clone())
    assert torch.equal(both_kernels(gate, up), expected)
    assert torch.equal(both_kernels(gate.T.clone().T, up.T.clone().T), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_kernels_propagate_nan_like_torch(kernels: Kernels, dtype: torch.dtype) -> None:
    x = random(4, 20, dtype=dtype)
    x[0, 3], x[1, 4], x[2, 19] = NAN, INF, -INF
    weight = torch.ones(20, dtype=dtype)
    pairs = [
        (kernels.rms_norm_forward(x, weight, EPS)[0], rms_norm(x, weight)),
        (kernels.silu_mul_forward(x, x), F.silu(x) * x),
        (kernels.silu_mul_forward(weight.expand(4, 20), x), F.silu(weight) * x),
    ]
    for found, expected in pairs:
        for kind in (torch.isnan, torch.isposinf, torch.isneginf):
            assert torch.equal(kind(found), kind(expected))


def cross_entropy(kernels: Kernels, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Nats, and the gradient of their sum."""
    logits = logits.clone()
    return kernels.cross_entropy_(logits, targets, wants_grad=True), logits


def exact_cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logits = logits.double().requires_grad_()
    nats = F.cross_entropy(logits, targets, reduction="none")
    nats.sum().backward()
    return nats.detach(), logits.grad


@pytest.mark.parametrize("vocabulary", [2, 16, 61, 1003])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cross_entropy_kernel(kernels: Kernels, dtype: torch.dtype, vocabulary: int) -> None:
    logits = random(9, vocabulary, dtype=dtype) * 4
    targets = torch.randint(vocabulary, (9,), generator=torch.Generator().manual_seed(1))
    nats, grad = cross_entropy(kernels, logits, targets)
    exact_nats, exact_grad = exact_cross_entropy(logits, targets)
    assert nats.dtype == torch.promote_types(dtype, torch.float32)
    assert relative(nats, exact_nats) < TOLERANCE[nats.dtype]
    assert relative(grad, exact_grad) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cross_entropy_gradient_over_all_magnitudes(kernels: Kernels, dtype: torch.dtype) -> None:
    logits, targets = torch.linspace(-80, 0, 161)[None].to(dtype), torch.tensor([40])
    _, grad = cross_entropy(kernels, logits, targets)
    _, exact = exact_cross_entropy(logits, targets)
    torch.testing.assert_close(grad.double(), exact, rtol=TOLERANCE[dtype], atol=SMALLEST)


def test_cross_entropy_without_gradient_leaves_the_logits(kernels: Kernels) -> None:
    logits, targets = random(5, 61, dtype=torch.float32), torch.arange(5)
    kept = logits.clone()
    nats = kernels.cross_entropy_(logits, targets, wants_grad=False)
    assert torch.equal(logits, kept)
    assert torch.equal(nats, cross_entropy(kernels, logits, targets)[0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("target", [0, 1, 18])
@pytest.mark.parametrize("first", [(1e4, -1e4), (-1e4, -1e4), (-INF, 3.0), (1e-30, -INF), (-INF, -INF)], ids=str)
def test_cross_entropy_of_extreme_logits(
    kernels: Kernels, dtype: torch.dtype, first: tuple[float, float], target: int
) -> None:
    logits = random(1, 19, dtype=dtype)
    logits[0, :2] = torch.tensor(first)
    (nats, grad), (exact_nats, exact_grad) = (
        function(logits, torch.tensor([target]))
        for function in (lambda *inputs: cross_entropy(kernels, *inputs), exact_cross_entropy)
    )
    # of numbers near 0, what the large ones beside them leave
    torch.testing.assert_close(nats.double(), exact_nats, rtol=TOLERANCE[nats.dtype], atol=TOLERANCE[nats.dtype])
    torch.testing.assert_close(grad.double(), exact_grad, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("logit", [NAN, INF])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cross_entropy_nan_affects_its_own_row_only(kernels: Kernels, dtype: torch.dtype, logit: float) -> None:
    logits, targets = random(3, 61, dtype=dtype), torch.tensor([0, 5, 9])
    expected_nats, expected_grad = cross_entropy(kernels, logits, targets)
    logits[1, 40] = logit
    nats, grad = cross_entropy(kernels, logits, targets)
    assert nats[1].isnan()
    assert grad[1].isnan().all()
    assert torch.equal(nats[::2], expected_nats[::2])
    assert torch.equal(grad[::2], expected_grad[::2])


def every_kernel(kernels: Kernels, dtype: torch.dtype) -> list[torch.Tensor]:
    x, up, grad = (random(300, 48, dtype=dtype, seed=seed) for seed in (1, 2, 3))
    found = results_and_gradients(lambda x: RmsNorm.apply(x, up[0], EPS, kernels), [x], grad)
    found += results_and_gradients(lambda x, up: SiluMul.apply(x, up, kernels), [x, up], grad)
    found += cross_entropy(kernels, x, torch.arange(300) % 48)
    rows, keys = make_rows([100, 120, 40, 30], [100, 120, 50, 30], [-1, -1, 1, -1]), torch.arange(16).view(4, 4).int()
    kept = kernels.dropout_bits(48, rows, keys, draw=3, drop_below=1 << 15)
    found.append(kernels.dropout(x, rows, kept))
    kernels.add_dropped_(up, x, rows, kept)
    found.append(up)
    heads = [random(300, n, 16, dtype=dtype, seed=n) for n in (4, 2, 2)]
    plan = AttentionPlan(rows=rows, scaling=0.25)
    return found + results_and_gradients(lambda q, k, v: RowAttention.apply(q, k, v, plan, kernels), heads, heads[0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_kernels_are_bitwise_independent_of_threads(kernels: Kernels, dtype: torch.dtype) -> None:
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(every_kernel(kernels, dtype))
    finally:
        torch.set_num_threads(before)
    for one, two, three in zip(*found, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)


@pytest.mark.parametrize("features", [16, 100])
def test_residual_norm_kernel(own_kernels: Kernels, features: int) -> None:
    """Its gradient is added to that which comes past it, and the stream is the same tensor afterwards."""
    weight = random(features, dtype=torch.bfloat16)
    x, past = (3 * random(2, 40, features, dtype=torch.float32, seed=seed) for seed in (1, 2))
    grad = random(2, 40, features, dtype=torch.bfloat16, seed=3)
    leaf = x.clone().requires_grad_()
    stream = leaf.mul(1)
    normed, same = ResidualNorm.apply(stream, weight, EPS, own_kernels)
    assert same is stream
    assert torch.equal(same, x)
    (dx,) = torch.autograd.grad([normed, same], [leaf], [grad, past.clone()])
    exact_x, wide = x.double().requires_grad_(), weight.double()
    exact = exact_x * torch.rsqrt(exact_x.square().mean(-1, keepdim=True) + EPS) * wide
    (exact_dx,) = torch.autograd.grad([exact, exact_x.mul(1)], [exact_x], [grad.double(), past.double()])
    assert normed.dtype == torch.bfloat16
    assert relative(normed, exact.detach()) < TOLERANCE[torch.bfloat16]
    assert relative(dx - past, exact_dx - past.double()) < TOLERANCE[torch.bfloat16]
