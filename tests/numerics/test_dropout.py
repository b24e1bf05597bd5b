"""Dropout bits: published vectors, equal in kernels and Torch, uncorrelated."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from lorascope.modeling.adapters.dropout import DropoutStreams, realised_probability
from lorascope.modeling.backends.cpu.backend import CpuBackend
from lorascope.modeling.backends.cpu.bindings import Kernels
from lorascope.modeling.backends.protocol import Backend, Dropout
from lorascope.modeling.backends.torch import dropout
from lorascope.modeling.backends.torch.backend import TORCH
from lorascope.modeling.backends.torch.dropout import TorchDropout
from support.references import random

LENGTHS, WIDTHS = (3, 40, 1, 7), (3, 41, 4, 7)
NAMES = [(0, 0, 0), (1, 0, 3), (1, 7, 3), ((1 << 40) + 1, 7, (1 << 31) + 3)]


def words(text: str) -> torch.Tensor:
    return torch.from_numpy(np.array([int(word, 16) for word in text.split()], dtype=np.uint32).view(np.int32))


@pytest.mark.parametrize(
    ("rounds", "counter", "key", "expected"),
    [
        (20, "0 0 0 0", "0 0 0 0", "9c6ca96a e17eae66 fc10ecd4 5256a7d8"),
        (20, *2 * ["ffffffff " * 4], "2a881696 57012287 f6c7446e a16a6732"),
        (20, "243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0 082efa98 ec4e6c89",
         "59cd1dbb b8879579 86b5d00c ac8b6d84"),
        (13, "243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0 082efa98 ec4e6c89",
         "4aa71d8f 734738c2 431fc6a8 ae6debf1"),
    ],
)  # fmt: skip
def test_threefry_equals_its_published_vectors(
    monkeypatch: pytest.MonkeyPatch, rounds: int, counter: str, key: str, expected: str
) -> None:
    """Threefry-4x32 as published with the Random123 library, which has answers for 13 and 20 rounds."""
    monkeypatch.setattr(dropout, "_ROUNDS", rounds)
    assert dropout._threefry(words(key)[:, None], words(counter)[:, None])[:, 0].tolist() == words(expected).tolist()


def draw(
    backend: Backend,
    *,
    number: int = 0,
    p: float = 0.5,
    names: Sequence[tuple[int, int, int]] = NAMES,
    lengths: Sequence[int] = LENGTHS,
    widths: Sequence[int] = WIDTHS,
) -> Dropout:
    streams = DropoutStreams(names, lengths=lengths, widths=widths, backend=backend)
    return streams.rows(0, len(names)).at(number, p)


def keep_mask(features: int, **changes: Any) -> torch.Tensor:
    drawn = draw(TORCH, **changes)
    assert isinstance(drawn, TorchDropout)
    return drawn.keep_mask(features)


@pytest.mark.parametrize("features", [6, 100, 128, 576])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_dropout_of_kernels_equals_torch(kernels: Kernels, dtype: torch.dtype, features: int) -> None:
    x, y = (random(sum(WIDTHS), features, dtype=dtype, seed=seed) for seed in (1, 2))
    for number, p in enumerate((0.0, 0.1, 0.5, 0.9, 0.99999)):
        found, expected = (draw(backend, number=number, p=p) for backend in (CpuBackend(kernels), TORCH))
        assert torch.equal(found.dropped(x), expected.dropped(x))
        sums = [y.clone(), y.clone()]
        for chosen, total in zip((found, expected), sums, strict=True):
            chosen.add_dropped_(total, x)
        assert torch.equal(*sums)


def test_kernels_drop_in_the_rows_of_a_part_of_a_micro_batch(kernels: Kernels) -> None:
    """As a layer does for one of several adapters."""
    x = random(sum(WIDTHS), 100, dtype=torch.float32)
    backend = CpuBackend(kernels)
    whole = draw(backend).dropped(x)
    streams = DropoutStreams(NAMES, lengths=LENGTHS, widths=WIDTHS, backend=backend)
    slots = slice(WIDTHS[0], sum(WIDTHS[:3]))
    assert torch.equal(streams.rows(1, 3).at(0, 0.5).dropped(x[slots]), whole[slots])


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_rate_is_the_probability(p: float) -> None:
    mask = keep_mask(100, p=p, names=[(3, 1, 4)], lengths=(4000,), widths=(4000,)).double()
    p = realised_probability(p)
    for share, n in ((1 - mask.mean(), mask.numel()), (1 - mask.mean(0), 4000), (1 - mask.mean(1), 100)):
        # 4,000 rows of 100 give 4,101 shares, of which none lies further out than this by chance
        assert ((share - p).abs() < 5 * (p * (1 - p) / n) ** 0.5).all()


def test_dropout_masks_are_uncorrelated() -> None:
    def bits(name: tuple[int, int, int], number: int) -> torch.Tensor:
        mask = keep_mask(96, number=number, names=[name], lengths=(1000,), widths=(1000,))
        return mask.flatten().double() * 2 - 1

    first = bits((5, 10, 2), 7)
    others = [
        bits(name, number)
        for name, number in (
            ((5, 10, 2), 8), ((5, 10, 2), 6), ((5, 10, 2), 0), ((5, 10, 3), 7), ((5, 11, 2), 7), ((6, 10, 2), 7),
            ((5 + (1 << 32), 10, 2), 7), ((5, 10, 2 + (1 << 31)), 7), ((2, 10, 5), 7), ((5, 2, 10), 7), ((10, 5, 2), 7),
        )
    ]  # fmt: skip
    # lanes, words of a counter, blocks and tokens
    others += [first.roll(shift) for shift in (1, 2, 16, 32, 64, 96, 128, 256, 2048)]
    for other in others:
        assert abs((first * other).mean().item()) < 5 / len(first) ** 0.5
