"""Speed of a backend against Torch on the user's model and rows, measured once and kept in the cache.

The decision is about how a study's numbers are rounded, so it must not change between two runs on a machine: the first
one's is kept, and without a cache there is none. Small models are not timed: a few milliseconds are mostly overhead.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import cycle
from pathlib import Path

import torch
from torch import nn

from lorascope.data.dataset import Example
from lorascope.engine.forward import FrozenModel, MicroBatchRow
from lorascope.engine.microbatch import with_prefix_groups
from lorascope.engine.oom import is_out_of_memory
from lorascope.errors import MODEL_ERRORS, is_own_fault
from lorascope.modeling.adapters.adapter import Adapter, AdapterShape, attach
from lorascope.modeling.backends.protocol import unpatch
from lorascope.modeling.backends.torch.backend import TORCH
from lorascope.paths import cache_folder

_SMALL = 5_000_000
"""Parameters of a model that is not timed."""
_ROW_TOKENS = 128
_LEAST_TOKENS, _MOST_TOKENS = 32, 1024
"""Tokens of the timed micro-batch: as many as go through the model in ``_SECONDS``."""
_SECONDS = 0.3
_MOST_ROUNDS = 5
_BUDGET, _LONGEST = 1.0, 3.0
"""Seconds after which no third and no second round begins."""
_CLEAR = 1.3
"""A ratio of the two times that needs no further round; one moment of a busy machine must not decide for Torch."""
_MARGIN = 1.1
"""Torch must be this much faster to win: the backend also shares prefixes and holds less memory."""
_RANK = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Seconds of a forward and a backward pass of one micro-batch, the best of some."""

    seconds: float
    """With the backend."""
    torch_seconds: float
    """With Torch's own operations."""
    tokens: int

    @property
    def ratio(self) -> float:
        """Return the backend's time divided by Torch's."""
        return self.seconds / self.torch_seconds

    @property
    def torch_is_faster(self) -> bool:
        """Return True if Torch is clearly faster."""
        return self.ratio > _MARGIN


def compare_speed(
    fast: FrozenModel, patched: Sequence[nn.Module], examples: Sequence[Example], *, share: bool
) -> Speed | None:
    """Return the speed of a backend against Torch, from the cache if it was measured before.

    Args:
        fast: the model as the backend computes it.
        patched: the modules that the backend patched; they are patched again on return.
        examples: rows to measure on.
        share: whether rows share prefixes in training.

    Returns:
        None for a small model, if Torch cannot compute it in the same way, or if the result cannot be kept.
    """
    kept = kept_speed(fast, share=share)
    if kept is not None or _is_small(fast):
        return kept
    file = _file(fast, share=share)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _keep(file, measure_speed(fast, patched, examples, share=share))
        return kept_speed(fast, share=share)
    except OSError:
        return None
    except (*MODEL_ERRORS, MemoryError) as error:  # Torch cannot compute the rows so, or not so many at once
        if is_own_fault(error) and not is_out_of_memory(error):
            raise
        return None


def kept_speed(fast: FrozenModel, *, share: bool) -> Speed | None:
    """Return the speed that an earlier run measured; None without one, or for a small model."""
    if _is_small(fast):
        return None
    file = _file(fast, share=share)
    with contextlib.suppress(OSError):
        try:
            return Speed(**json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError):  # it is damaged
            file.unlink()
    return None


def _is_small(frozen: FrozenModel) -> bool:
    return sum(parameter.numel() for parameter in frozen.model.parameters()) < _SMALL


def measure_speed(
    fast: FrozenModel, patched: Sequence[nn.Module], examples: Sequence[Example], *, share: bool
) -> Speed:
    """Time both on a micro-batch that goes through the model in a moment, in turns, until it is clear which is faster.

    The arguments are those of ``compare_speed``.
    """
    begin, plain = time.perf_counter(), replace(fast, backend=TORCH)

    def seconds(frozen: FrozenModel, tokens: int) -> float:
        return _seconds(frozen, _rows(examples, tokens, share=share and frozen.can_share))

    with _one_adapter(fast):
        tokens = _LEAST_TOKENS
        best = seconds(fast, tokens)
        if best < _SECONDS / 2:
            tokens = min(_MOST_TOKENS, int(_SECONDS / best) * tokens)
            best = seconds(fast, tokens)
        with _unpatched(patched):
            plain_best = seconds(plain, tokens)
        for done in range(1, _MOST_ROUNDS):
            clear = best * _CLEAR < plain_best or (done > 1 and best > _CLEAR * plain_best)
            if clear or time.perf_counter() - begin > (_LONGEST if done == 1 else _BUDGET):
                break
            best = min(best, seconds(fast, tokens))
            with _unpatched(patched):
                plain_best = min(plain_best, seconds(plain, tokens))
    return Speed(seconds=best, torch_seconds=plain_best, tokens=tokens)


def _seconds(frozen: FrozenModel, rows: Sequence[MicroBatchRow]) -> float:
    begin = time.perf_counter()
    torch.cat(frozen.row_nats(rows)).sum().backward()
    if frozen.device.type == "cuda":
        torch.cuda.synchronize(frozen.device)
    return time.perf_counter() - begin


def _rows(examples: Sequence[Example], tokens: int, *, share: bool) -> list[MicroBatchRow]:
    """Fill a micro-batch with rows, again from the first if there are too few; only different rows share prefixes."""
    found: list[MicroBatchRow] = []
    for example in cycle(examples):
        length = min(example.n_tokens, _ROW_TOKENS, tokens)
        mask = example.target_mask[:length].copy()
        mask[-1] = True  # the targets may lie behind
        cut = Example(input_ids=example.input_ids[:length], target_mask=mask)
        found.append(MicroBatchRow(example=cut, adapter=0))
        tokens -= length
        if tokens < 2:
            break
    different = min(len(found), len(examples))
    return [*with_prefix_groups(found[:different]), *found[different:]] if share else found


@contextlib.contextmanager
def _one_adapter(frozen: FrozenModel) -> Iterator[None]:
    rank = min(_RANK, *(min(layer.features) for layer in frozen.layers.values()))
    shape = AdapterShape(rank=rank, scale=1.0, dropout=0.0, seed=0)
    attach(frozen.layers, [Adapter(frozen.layers, shape, compute_dtype=frozen.model.dtype)])
    try:
        yield
    finally:
        attach(frozen.layers, [])


@contextlib.contextmanager
def _unpatched(modules: Sequence[nn.Module]) -> Iterator[None]:
    forwards = [module.forward for module in modules]
    unpatch(modules)
    try:
        yield
    finally:
        for module, forward in zip(modules, forwards, strict=True):
            module.forward = forward


def _file(fast: FrozenModel, *, share: bool) -> Path:
    """Return the file of a result, named by a digest of all that decides which is faster."""
    model = fast.model
    shapes = [(name, tuple(weight.shape), str(weight.dtype)) for name, weight in model.named_parameters()]
    libraries = [version(name) for name in ("lorascope", "torch", "transformers")]
    how = (fast.packing, fast.chunked_head, share, torch.get_num_threads(), str(fast.device))
    parts = (fast.backend.fingerprint, type(model).__name__, shapes, tuple(fast.layers), libraries, how)
    return cache_folder() / "speed" / f"{hashlib.sha256(repr(parts).encode()).hexdigest()[:24]}.json"


def _keep(file: Path, speed: Speed) -> None:
    """Keep a result, unless another process has kept one."""
    aside = file.with_suffix(f".{os.getpid()}")
    aside.write_text(json.dumps(asdict(speed)), encoding="utf-8")
    try:
        with contextlib.suppress(FileExistsError):
            os.link(aside, file)
    finally:
        aside.unlink()
