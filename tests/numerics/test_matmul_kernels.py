"""The kernels' products with frozen weights and adapters, against the same in float64."""

import copy
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from lorascope.engine.forward import MicroBatchRow
from lorascope.engine.trial import TrainingTrial
from lorascope.engine.verify import prepare_model
from lorascope.measure.flops import MatmulCounter
from lorascope.modeling.adapters.adapter import Adapter, AdapterShape, attach
from lorascope.modeling.adapters.linear_kinds.dense import is_unmodified
from lorascope.modeling.adapters.lora import MultiLoraLinear
from lorascope.modeling.backends.cpu.autograd import FrozenProduct, GatedFeedForward
from lorascope.modeling.backends.cpu.backend import CpuBackend
from lorascope.modeling.backends.cpu.bindings import Kernels
from lorascope.modeling.backends.cpu.ctypes_structs import LoraSegment
from lorascope.modeling.backends.cpu.matmul_hooks import KernelProduct, watched_products
from lorascope.modeling.backends.torch.backend import TORCH
from lorascope.modeling.packing.current import ActiveMicroBatch, active_microbatch
from lorascope.modeling.packing.packed_layout import BASE_ONLY, MicroBatchLayout
from lorascope.search.trials import plan_trials
from support.groups import make_spec
from support.references import TOLERANCE, make_rows, random, relative, results_and_gradients
from support.tiny_models import TARGETS, make_examples, make_model, make_splits

BF16 = torch.bfloat16
ROUNDED = 2.5e-3
"""One rounding to bfloat16, in norm; two of numbers of like size."""
ROWS = [1, 17, 128, 200, 300]
"""Below a tile's 16 rows, a task's 128, and several tasks."""


def make_linear(n_in: int, n_out: int, *, bias: bool = False, seed: int = 0) -> nn.Linear:
    layer = nn.Linear(n_in, n_out, bias).to(BF16).requires_grad_(requires_grad=False)
    layer.weight.copy_(random(n_out, n_in, dtype=BF16, seed=seed) / n_in**0.5)
    if bias:
        layer.bias.copy_(random(n_out, dtype=BF16, seed=seed + 1))
    return layer


def exact(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, layer.weight.double(), None if layer.bias is None else layer.bias.double())


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("sizes", [(32, 64), (96, 1056), (1056, 96)], ids=str)
def test_linear_kernel(product_kernels: Kernels, sizes: tuple[int, int], bias: bool, rows: int) -> None:
    layer = make_linear(*sizes, bias=bias)
    x, grad = random(rows, sizes[0], dtype=BF16, seed=1), random(rows, sizes[1], dtype=BF16, seed=2)
    found = results_and_gradients(lambda x: FrozenProduct.apply(x[None], layer, product_kernels, None)[0], [x], grad)
    expected = results_and_gradients(lambda x: exact(layer, x), [x.double()], grad)
    assert max(map(relative, found, expected)) < ROUNDED


OfTwo = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def added(run: OfTwo) -> OfTwo:
    """What adds to a residual stream in place, as a function of the stream."""
    return lambda x, residual: run(x, residual.clone())


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("sizes", [(96, 64), (96, 1056), (1056, 96)], ids=str)
def test_linear_kernel_adds_to_a_residual_stream(
    product_kernels: Kernels, sizes: tuple[int, int], bias: bool, rows: int
) -> None:
    """What it adds is not rounded to bfloat16, nor is what flows past it."""
    layer = make_linear(*sizes, bias=bias)
    x, grad = random(rows, sizes[0], dtype=BF16, seed=1), random(rows, sizes[1], dtype=torch.float32, seed=2)
    stream = 100 * random(rows, sizes[1], dtype=torch.float32, seed=3)
    y, dx, dstream = results_and_gradients(
        added(lambda x, residual: FrozenProduct.apply(x, layer, product_kernels, residual)), [x, stream], grad.clone()
    )
    assert relative(y.double() - stream, exact(layer, x.double())) < 1e-4
    assert relative(dx, grad.to(BF16).double() @ layer.weight.double()) < ROUNDED
    assert torch.equal(dstream, grad)


@pytest.mark.parametrize("rows", ROWS)
def test_gated_linear_kernel_adds_to_a_residual_stream(product_kernels: Kernels, rows: int) -> None:
    gate, up, down = make_linear(64, 608, seed=1), make_linear(64, 608, seed=2), make_linear(608, 64, bias=True, seed=3)
    x, grad = random(rows, 64, dtype=BF16, seed=4) * 3, random(rows, 64, dtype=torch.float32, seed=5)
    stream = random(rows, 64, dtype=torch.float32, seed=6)
    found = results_and_gradients(
        added(lambda x, residual: GatedFeedForward.apply(x, gate, up, down, product_kernels, residual)),
        [x, stream],
        grad.clone(),
    )
    expected = results_and_gradients(
        lambda x, residual: residual + exact(down, F.silu(exact(gate, x)) * exact(up, x)),
        [x.double(), stream.double()],
        grad,
    )
    assert max(map(relative, found, expected)) < TOLERANCE[BF16]
    assert torch.equal(found[2], grad)


@pytest.mark.parametrize("rows", ROWS)
def test_linear_kernels_share_one_input(product_kernels: Kernels, rows: int) -> None:
    layers = [make_linear(96, n_out, bias=n_out == 32, seed=n_out) for n_out in (64, 32, 160)]
    x = random(rows, 96, dtype=BF16)
    found = product_kernels.linear_forward(x, [(layer.weight, layer.bias) for layer in layers])
    assert max(relative(y, exact(layer, x.double())) for y, layer in zip(found, layers, strict=True)) < ROUNDED
    dx = product_kernels.linear_backward([layer.weight for layer in layers], found)
    expected = [y.double() @ layer.weight.double() for y, layer in zip(found, layers, strict=True)]
    assert relative(dx, torch.stack(expected).sum(0)) < ROUNDED


@pytest.mark.parametrize("rows", ROWS)
def test_gated_linear_kernel(product_kernels: Kernels, rows: int) -> None:
    gate, up, down = make_linear(64, 608, seed=1), make_linear(64, 608, seed=2), make_linear(608, 64, seed=3)
    x, grad = random(rows, 64, dtype=BF16, seed=4) * 3, random(rows, 64, dtype=BF16, seed=5)
    found = results_and_gradients(lambda x: GatedFeedForward.apply(x, gate, up, down, product_kernels, None), [x], grad)
    expected = results_and_gradients(lambda x: exact(down, F.silu(exact(gate, x)) * exact(up, x)), [x.double()], grad)
    assert max(map(relative, found, expected)) < TOLERANCE[BF16]


@pytest.mark.parametrize("rows", [3, 100])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("sizes", [(64, 96), (1632, 640), (96, 9 * 512 + 32)], ids=str)
def test_output_head_kernel(product_kernels: Kernels, sizes: tuple[int, int], bias: bool, rows: int) -> None:
    """With more outputs than one round of groups takes, and a width of several panels."""
    layer = make_linear(*sizes, bias=bias)
    x, dy = random(rows, sizes[0], dtype=BF16, seed=1), random(rows, sizes[1], dtype=BF16, seed=2)
    y, dx = torch.full((rows, sizes[1]), torch.nan, dtype=BF16), torch.full((rows, sizes[0]), torch.nan, dtype=BF16)
    product_kernels.head_forward(x, layer.weight, layer.bias, y)
    product_kernels.head_backward(dy, layer.weight, dx)
    assert relative(y, exact(layer, x.double())) < ROUNDED
    assert relative(dx, dy.double() @ layer.weight.double()) < ROUNDED


@dataclass(frozen=True, kw_only=True)
class Adapted:
    """A layer with the segments of some adapters, in neighbouring slots, behind slots that have none."""

    layer: nn.Linear
    x: torch.Tensor
    dy: torch.Tensor
    segments: Sequence[LoraSegment]
    masks: Sequence[torch.Tensor]


BARE = 32
"""Slots without an adapter."""


def make_adapted(
    kernels: Kernels, ranks: Sequence[int], slots: Sequence[int], *, n_in: int, n_out: int, dropped: bool, draw: int = 0
) -> Adapted:
    total = BARE + sum(slots)
    x, dy = random(total, n_in, dtype=BF16), random(total, n_out, dtype=BF16, seed=n_out)
    segments, masks, first = [], [], BARE
    for rank, n in zip(ranks, slots, strict=True):
        rows = make_rows([n - 20, 11], [n - 20, 20])
        keys = torch.arange(8).view(2, 4).int() + rank
        kept = kernels.dropout_bits(n_in, rows, keys, draw=draw, drop_below=1 << 15) if dropped else None
        ones = torch.ones(n, n_in, dtype=BF16)
        masks.append((ones if kept is None else kernels.dropout(ones, rows, kept)).double())
        segments.append(
            LoraSegment(
                slots=slice(first, first + n),
                factor=4 / 0.9,
                A=random(rank, n_in, dtype=torch.float32, seed=rank) / n_in**0.5,
                B=random(n_out, rank, dtype=torch.float32, seed=rank + 1) / rank**0.5,
                hidden=kernels.hidden(x, n, rank),
                gradients=(random(rank, n_in, dtype=torch.float32), random(n_out, rank, dtype=torch.float32, seed=1)),
                dropout=None if kept is None else (rows, kept),
            )
        )
        first += n
    return Adapted(layer=make_linear(n_in, n_out, bias=True, seed=draw), x=x, dy=dy, segments=segments, masks=masks)


def compute(kernels: Kernels, made: Sequence[Adapted], *, wants_dx: bool = True) -> list[torch.Tensor]:
    """Outputs of layers with one input, the gradient of that and those of all segments."""
    x, segments = made[0].x, [one.segments for one in made]
    outputs = kernels.linear_forward(x, [(one.layer.weight, one.layer.bias) for one in made], segments)
    weights, grads = [one.layer.weight for one in made], [one.dy for one in made]
    dx = kernels.adapted_backward(x, weights, grads, segments, wants_dx=wants_dx)
    return [
        *outputs,
        *([] if dx is None else [dx]),
        *(grad for own in segments for segment in own for grad in segment.gradients),
    ]


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize(
    ("ranks", "slots", "n_in", "widths"),
    [
        ((8,), (32,), 32, (64,)),
        ((1, 16, 40), (96, 32, 160), 96, (32, 608, 64)),
        ((33, 600), (64, 64), 608, (160, 32)),
        ((16, 800), (32, 96), 1056, (32, 1632)),
    ],
    ids=str,
)
def test_lora_kernel(
    product_kernels: Kernels,
    ranks: Sequence[int],
    slots: Sequence[int],
    n_in: int,
    widths: Sequence[int],
    dropped: bool,
) -> None:
    """What they add to outputs and to all gradients; ranks and widths that fill tiles and that do not."""
    made = [
        make_adapted(product_kernels, ranks, slots, n_in=n_in, n_out=n_out, dropped=dropped, draw=draw)
        for draw, n_out in enumerate(widths)
    ]
    before = [[[g.clone() for g in part.gradients] for part in one.segments] for one in made]
    x = made[0].x.double()
    outputs, expected_dx = compute(product_kernels, made), torch.zeros_like(x)
    for one, y, gradients in zip(made, outputs, before, strict=False):
        expected, dy = exact(one.layer, x), one.dy.double()
        expected_dx += dy @ one.layer.weight.double()
        for part, mask, (dA, dB) in zip(one.segments, one.masks, gradients, strict=True):
            own, A, B = part.slots, part.A.to(BF16).double(), part.B.to(BF16).double()
            hidden, dh = part.factor * (x[own] * mask) @ A.T, part.factor * dy[own] @ B
            expected[own] += hidden @ B.T
            expected_dx[own] += dh @ A * mask
            assert relative(part.hidden[:, : len(A)], hidden) < ROUNDED
            assert not part.hidden[:, len(A) :].any()
            assert relative(part.gradients[0] - dA, dh.T @ (x[own] * mask)) < ROUNDED
            assert relative(part.gradients[1] - dB, dy[own].T @ hidden) < ROUNDED
        assert relative(y, expected) < ROUNDED
    assert relative(outputs[len(made)], expected_dx) < ROUNDED


def test_lora_kernel_keeps_small_updates(product_kernels: Kernels) -> None:
    """Added to a result that is rounded already, half of an update of a thousandth of it would be lost."""
    made = make_adapted(product_kernels, (8,), (640,), n_in=96, n_out=96, dropped=False)
    (part,) = made.segments
    part.B.mul_(2e-4)
    (y,) = product_kernels.linear_forward(made.x, [(made.layer.weight, made.layer.bias)], [made.segments])
    x, own = made.x.double(), part.slots
    update = part.factor * x[own] @ part.A.to(BF16).double().T @ part.B.to(BF16).double().T
    change = y[own].double() - exact(made.layer, x)[own]
    share = (change * update).sum() / update.square().sum()
    assert update.norm() < 2e-3 * y[own].double().norm()
    assert abs(share - 1) < 0.05


def test_kernel_weights_are_rounded_like_torch(product_kernels: Kernels) -> None:
    made, other = (make_adapted(product_kernels, (8, 40), (64, 32), n_in=64, n_out=32, dropped=True) for _ in range(2))
    ties = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, -1 - 3 * 2**-8])  # to even: down, up, and so below zero
    for own, rounded in zip(made.segments, other.segments, strict=True):
        for weight, as_torch in ((own.A, rounded.A), (own.B, rounded.B)):
            weight.flatten()[: len(ties)] = ties
            as_torch.copy_(weight.to(BF16))
            assert not torch.equal(weight, as_torch)
    pairs = zip(compute(product_kernels, [made]), compute(product_kernels, [other]), strict=True)
    assert all(torch.equal(ours, expected) for ours, expected in pairs)


def test_linear_kernel_skips_unneeded_input_gradients(product_kernels: Kernels) -> None:
    made, other = (make_adapted(product_kernels, (8, 40), (64, 32), n_in=64, n_out=32, dropped=True) for _ in range(2))
    y, _, *gradients = compute(product_kernels, [made])
    same_y, *same = compute(product_kernels, [other], wants_dx=False)
    assert torch.equal(y, same_y)
    assert all(map(torch.equal, gradients, same))


@pytest.mark.parametrize("length", [8, 40])
def test_lora_inside_a_tile_falls_back_to_torch(own_kernels: Kernels, length: int) -> None:
    """Padded rows of which the first have no adapter."""
    layer = MultiLoraLinear(make_linear(64, 64))
    shape = AdapterShape(rank=8, scale=4.0, dropout=0.0, seed=0)
    adapter = Adapter({"l": layer}, shape, compute_dtype=BF16)
    with torch.no_grad():
        adapter.layers["l"].B.copy_(random(64, 8, dtype=torch.float32))
    attach({"l": layer}, [adapter])
    lengths, adapters = (length,) * 5, (BASE_ONLY, 0, 0, 0, 0)
    layout = MicroBatchLayout(lengths=lengths, adapters=adapters, padded=True, device=torch.device("cpu"))
    x, found = random(5, length, 64, dtype=BF16), []
    for backend in (CpuBackend(own_kernels), TORCH):
        with active_microbatch(ActiveMicroBatch(layout=layout, backend=backend)):
            found.append(layer(x))
    assert relative(found[0], found[1]) < ROUNDED


WIDE = {
    "llama": {"hidden_size": 64, "num_attention_heads": 4, "head_dim": 16, "intermediate_size": 96},
    "opt": {"hidden_size": 64, "word_embed_proj_dim": 32, "ffn_dim": 96},
}


def gradient(model: PreTrainedModel, kind: str, *, kernels: bool) -> tuple[torch.Tensor, int]:
    """Gradients of two trials' adapters over two micro-batches, and how many matmuls the kernels did."""
    spec, rows = make_spec(ranks=(4, 40)), make_examples(6, longest=70)
    frozen, _ = prepare_model(model, TARGETS[kind], make_splits().train, packing=True, kernels=kernels)
    trials = [TrainingTrial(record, spec, frozen.layers, model.dtype) for record in plan_trials(spec)]
    attach(frozen.layers, [trial.adapter for trial in trials])
    made: list[KernelProduct] = []
    with watched_products(made.append):
        for trial in trials:
            with torch.no_grad():  # B is zero at first, which would hide A's gradient
                trial.adapter.flat.copy_(0.05 * random(len(trial.adapter.flat), dtype=torch.float64))
        for part in (rows[:2], rows[2:]):
            microbatch = [
                MicroBatchRow(example=row, adapter=index, stream=(0, 5, i))
                for index in range(len(trials))
                for i, row in enumerate(part)
            ]
            torch.cat(frozen.row_nats(microbatch)).sum().backward()
    return torch.cat([trial.adapter.flat.grad.double() for trial in trials]), len(made)


@pytest.mark.parametrize("kind", sorted(WIDE))
@pytest.mark.usefixtures("model_kernels")
def test_model_gradients_are_as_exact_as_torch(kind: str) -> None:
    model = make_model(kind, BF16, vocabulary=64, **WIDE[kind])
    exact, _ = gradient(copy.deepcopy(model).double(), kind, kernels=False)
    plain, none = gradient(copy.deepcopy(model), kind, kernels=False)
    ours, made = gradient(model, kind, kernels=True)
    assert made > 100
    assert none == 0
    nearer = 0.95 if kind == "llama" else 1.2  # whose sums are kept in float32
    assert relative(ours, exact) < nearer * relative(plain, exact) < 0.1


def every_product(kernels: Kernels) -> list[torch.Tensor]:
    """Many rows, and few rows with several panels of columns, which threads share."""
    layer, head = make_linear(96, 1632, bias=True), make_linear(96, 9 * 512 + 32, seed=1)
    gate, up, down = make_linear(96, 1632, seed=1), make_linear(96, 1632, seed=2), make_linear(1632, 96, seed=3)
    x, grad = random(300, 96, dtype=BF16), random(300, 1632, dtype=BF16)
    found = results_and_gradients(lambda x: FrozenProduct.apply(x, layer, kernels, None), [x], grad)
    found += results_and_gradients(lambda x: GatedFeedForward.apply(x, gate, up, down, kernels, None), [x], x)
    stream, wide_stream = random(300, 96, dtype=torch.float32), random(300, 1632, dtype=torch.float32)
    found += results_and_gradients(
        added(lambda x, residual: FrozenProduct.apply(x, layer, kernels, residual)), [x, wide_stream], wide_stream
    )
    found += results_and_gradients(
        added(lambda x, residual: GatedFeedForward.apply(x, gate, up, down, kernels, residual)), [x, stream], stream
    )
    y, dx = x.new_empty(300, len(head.weight)), torch.empty_like(x)
    kernels.head_forward(x, head.weight, None, y)
    kernels.head_backward(y, head.weight, dx)
    made = make_adapted(kernels, (1, 16, 40), (96, 32, 160), n_in=96, n_out=32, dropped=True)
    wide = make_adapted(kernels, (8, 40), (32, 64), n_in=1632, n_out=1056, dropped=True)
    return [*found, y, dx, *compute(kernels, [made]), *compute(kernels, [wide])]


def test_matmul_kernels_are_bitwise_independent_of_threads(product_kernels: Kernels) -> None:
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(every_product(product_kernels))
    finally:
        torch.set_num_threads(before)
    for one, two, three in zip(*found, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)


def test_matmul_kernels_are_counted_like_torch(product_kernels: Kernels) -> None:
    """A step counts the same work whoever makes its products."""
    layer, x = make_linear(64, 96), random(40, 64, dtype=BF16).requires_grad_()
    counts = []
    for run in (lambda: FrozenProduct.apply(x, layer, product_kernels, None), lambda: layer(x)):
        with MatmulCounter() as counted:
            run().sum().backward()
        counts.append((counted.flops, counted.bytes))
    assert counts[0] == counts[1]
    made = make_adapted(product_kernels, (8,), (64,), n_in=64, n_out=32, dropped=False)
    with MatmulCounter() as counted:
        compute(product_kernels, [made])
    assert counted.flops == 3 * 2 * 64 * 8 * (64 + 32) + 2 * 2 * (64 + BARE) * 64 * 32


def test_unsupported_matmul_falls_back_to_torch(own_kernels: Kernels, plain_kernels: Kernels) -> None:
    x, weight = torch.ones(1, 64, dtype=BF16), torch.ones(32, 64, dtype=BF16)
    assert not plain_kernels.supports_matmul(x, weight)
    for unfit in (x.float(), x[0], x[:0]):
        assert not own_kernels.supports_matmul(unfit, weight)
    for unfit in (weight.float(), weight.T, torch.ones(40, 64, dtype=BF16), weight[:, :40]):
        assert not own_kernels.supports_matmul(x, unfit)


@pytest.mark.parametrize("changed", ["forward", "hook", "class"])
def test_modified_layer_is_not_replaced(own_kernels: Kernels, changed: str) -> None:
    layer = make_linear(64, 32)
    assert is_unmodified(layer, nn.Linear)
    if changed == "forward":
        layer.forward = lambda input: 2 * F.linear(input, layer.weight)  # noqa: A006 - as in nn.Linear
    elif changed == "hook":
        layer.register_forward_hook(lambda module, inputs, output: 2 * output)
    else:
        layer.__class__ = type("Doubled", (nn.Linear,), {})
    assert not is_unmodified(layer, nn.Linear)


@pytest.mark.parametrize("level", ["tiles", "vectors"])
def test_matmul_kernel_out_of_memory_is_a_memory_error(level: str) -> None:
    """In a process of its own, as the kernels' memory is kept."""
    code = """
import resource, sys, torch
sys.path.insert(0, sys.argv[1])
from support.kernels import kernels_of
kernels = kernels_of(sys.argv[2])
x, weight = torch.ones(32, 8192, dtype=torch.bfloat16), torch.ones(8192, 8192, dtype=torch.bfloat16)
kernels.linear_forward(x[:, :32].contiguous(), [(weight[:32, :32].contiguous(), None)])
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, used + 2**26))
try:
    kernels.linear_forward(x, [(weight, None)])
except MemoryError as error:
    print(error)
print(kernels.linear_forward(x[:, :32].contiguous(), [(weight[:32, :32].contiguous(), None)])[0][0, 0].item())
"""
    tests = str(Path(__file__).parents[1])
    run = subprocess.run([sys.executable, "-c", code, tests, level], capture_output=True, text=True, check=False)
    assert run.stdout == "no memory for linear_forward\n32.0\n", run.stderr
