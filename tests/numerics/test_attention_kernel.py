"""Compiled attention over a packed micro-batch, against each row by itself in plain operations."""

import math
from functools import partial

import pytest
import torch

from lorascope.modeling.backends.cpu.autograd import RowAttention
from lorascope.modeling.backends.cpu.bindings import Kernels
from lorascope.modeling.backends.cpu.ctypes_structs import AttentionPlan, KernelRows, Rotary
from support.references import TOLERANCE, make_rows, random, relative, results_and_gradients, row_attention

HEADS, KV_HEADS, SCALING = 4, 2, 0.2
# Rows of less and more than the 32 queries of a block, of just so many, and of one token; children of a row that ends
# inside of a block, the longer one first; a row behind all of them.
ROWS = make_rows(lengths=[70, 33, 101, 1, 32, 5], widths=[70, 40, 101, 2, 32, 8], parents=[-1, 0, 0, -1, 3, -1])


def attend(
    kernels: Kernels,
    *heads: torch.Tensor,
    rows: KernelRows = ROWS,
    rotary: Rotary | None = None,
    window: int | None = None,
) -> torch.Tensor:
    plan = AttentionPlan(rows=rows, scaling=SCALING, window=window, rotary=rotary)
    return RowAttention.apply(*heads, plan, kernels)


def make_heads(rows: KernelRows, features: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """Queries, keys, values, and a gradient of the output."""
    slots = int(rows.widths.sum())
    counts = (HEADS, KV_HEADS, KV_HEADS, HEADS)
    return [random(slots, n, features, dtype=dtype, seed=seed) for seed, n in enumerate(counts)]


def make_rotary(rows: KernelRows, features: int, dtype: torch.dtype) -> Rotary:
    """No angles of a real model, but numbers that show any mistaken sign, half or token."""
    slots = int(rows.widths.sum())
    cosine, sine = (random(slots, features, dtype=dtype, seed=seed) for seed in (8, 9))
    return Rotary(cosine=cosine, sine=sine)


def real_slots(rows: KernelRows) -> torch.Tensor:
    spans = zip(rows.starts.tolist(), rows.lengths.tolist(), strict=True)
    return torch.cat([torch.arange(start, start + length) for start, length in spans])


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("window", [None, 2])
def test_attention_gradcheck(own_kernels: Kernels, window: int | None, rotary: bool) -> None:
    """Every element over short rows; over rows of several blocks, along random directions."""
    short = make_rows(lengths=[2, 2, 1, 1], widths=[2, 2, 1, 2], parents=[-1, 0, 0, -1])
    for rows, every in ((short, True), (ROWS, False)):
        *heads, _ = make_heads(rows, 6, torch.float64)
        angles = make_rotary(rows, 6, torch.float64) if rotary else None
        function = partial(attend, own_kernels, rows=rows, window=window, rotary=angles)
        assert torch.autograd.gradcheck(function, [x.requires_grad_() for x in heads], fast_mode=not every)


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("window", [None, 7, 45])
@pytest.mark.parametrize("features", [6, 64, 80])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_attention_equals_the_reference(
    kernels: Kernels, dtype: torch.dtype, features: int, window: int | None, rotary: bool
) -> None:
    *heads, grad = make_heads(ROWS, features, dtype)
    angles = make_rotary(ROWS, features, dtype) if rotary else None
    exact_angles = None
    if angles is not None:
        exact_angles = Rotary(cosine=angles.cosine.double(), sine=angles.sine.double())
    found = results_and_gradients(partial(attend, kernels, rotary=angles, window=window), heads, grad)
    exact = partial(row_attention, rotary=exact_angles, rows=ROWS, window=window, scaling=SCALING)
    expected = results_and_gradients(exact, [x.double() for x in heads], grad)
    assert max(map(relative, found, expected)) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_attention_ignores_and_zeroes_padding(kernels: Kernels, dtype: torch.dtype) -> None:
    *heads, grad = make_heads(ROWS, 20, dtype)
    expected = results_and_gradients(partial(attend, kernels), heads, grad)
    real = real_slots(ROWS)
    empty = torch.ones(len(grad), dtype=torch.bool).index_fill(0, real, value=False)
    for x in (*heads, grad):
        x[empty] = math.nan
    found = results_and_gradients(partial(attend, kernels), heads, grad)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)
        assert not ours[empty].any()
    assert found[0][real].ne(0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_attention_keeps_nan_within_its_prefix_group(kernels: Kernels, dtype: torch.dtype) -> None:
    """A child's reach its parent's gradient, and neither its siblings nor what its parent gives."""
    *heads, grad = make_heads(ROWS, 20, dtype)
    clean = results_and_gradients(partial(attend, kernels), heads, grad)
    spoilt_row = 1
    start, length = int(ROWS.starts[spoilt_row]), int(ROWS.lengths[spoilt_row])
    for x in heads:
        x[start + 2] = math.nan
    found = results_and_gradients(partial(attend, kernels), heads, grad)
    own = torch.arange(start, start + length)
    parent = torch.arange(int(ROWS.starts[0]), int(ROWS.lengths[0]))
    for ours, theirs, spoilt in zip(found, clean, [own, own, *[torch.cat([parent, own])] * 2], strict=True):
        others = torch.ones(len(ours), dtype=torch.bool).index_fill(0, spoilt, value=False)
        assert torch.equal(ours[others], theirs[others])
        assert ours[start + 2 : start + length].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_attention_of_a_prefix_group_is_bitwise_independent(kernels: Kernels, dtype: torch.dtype) -> None:
    *heads, grad = make_heads(ROWS, 20, dtype)
    together = results_and_gradients(partial(attend, kernels), heads, grad)
    for first, stop in ((0, 3), (3, 5), (5, 6)):
        parents = [parent - first if parent >= 0 else -1 for parent in ROWS.parents[first:stop].tolist()]
        rows = make_rows(ROWS.lengths[first:stop].tolist(), ROWS.widths[first:stop].tolist(), parents)
        slots = slice(int(ROWS.starts[first]), int(ROWS.starts[first] + rows.widths.sum()))
        alone = results_and_gradients(partial(attend, kernels, rows=rows), [x[slots] for x in heads], grad[slots])
        for ours, theirs in zip(alone, together, strict=True):
            assert torch.equal(ours, theirs[slots])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_attention_takes_heads_of_one_fused_projection(kernels: Kernels, dtype: torch.dtype) -> None:
    slots, counts = int(ROWS.widths.sum()), [HEADS, KV_HEADS, KV_HEADS]
    together = random(slots, sum(counts), 20, dtype=dtype)
    grad = random(slots, 20, HEADS, dtype=dtype, seed=1).transpose(1, 2)
    found = results_and_gradients(lambda x: attend(kernels, *x.split(counts, dim=1)), [together], grad)
    expected = results_and_gradients(
        partial(attend, kernels), [x.contiguous() for x in together.split(counts, dim=1)], grad.contiguous()
    )
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], torch.cat(expected[1:], dim=1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_attention_with_extreme_scores_selects_one_key(kernels: Kernels, dtype: torch.dtype) -> None:
    """The largest of scores thousands apart takes all: no overflow, and no gradient where nothing can move."""
    rows = make_rows([3])
    q = torch.full((3, 1, 2), 100.0, dtype=dtype)
    k = torch.tensor([-100.0, 200.0, 0.0], dtype=dtype)[:, None, None].expand(3, 1, 2).contiguous()
    v = random(3, 1, 2, dtype=dtype)
    out, dq, dk, dv = results_and_gradients(partial(attend, kernels, rows=rows), [q, k, v], torch.ones(3, 1, 2))
    assert torch.equal(out, v[[0, 1, 1]])
    assert torch.equal(dv[:, 0, 0], torch.tensor([1.0, 2.0, 0.0], dtype=dtype))
    assert not dq.any()
    assert not dk.any()
