"""The untouched model: its own logits on the user's rows, one row at a time, and what they show about it."""

import contextlib
import inspect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from lorascope.data.dataset import Example, Examples
from lorascope.engine.oom import is_out_of_memory
from lorascope.errors import MODEL_ERRORS, InputError, is_own_fault
from lorascope.modeling.adapters.experts import expert_parameters
from lorascope.modeling.adapters.linear_kinds.dense import DENSE_TYPES
from lorascope.modeling.adapters.linear_kinds.registry import find_kind
from lorascope.modeling.load import quiet
from lorascope.modeling.targets import Reach

_CANNOT_COMPUTE = (*MODEL_ERRORS, AssertionError, IndexError, NotImplementedError)
_CHECKED_ROWS = 4
CHECKED_TOKENS = 128
"""Tokens of a row whose logits are compared; the longest row goes through the model whole."""
_CAUSAL_TOKENS = 16
_HEAD_TOKENS = 8
_HEAD_FACTORS = (1.0, 64.0)
"""The head is tried on the hidden states and on larger ones: a cap hardly changes small logits."""
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}
"""Largest root mean square difference of logits, as a share of their own, that rounding explains. A wrong position or
mask moves logits by tens of per cent."""
_HEAD_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-6, torch.bfloat16: 1e-4, torch.float16: 1e-4}
"""The same for logits of one product: what rounds otherwise is another product."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CheckedRow:
    """A row on which ways of computing the model are compared."""

    example: Example
    at: torch.Tensor
    """int64, the tokens whose logits are compared."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """What the untouched model makes of the checked rows."""

    rows: tuple[CheckedRow, ...]
    logits: tuple[torch.Tensor, ...]
    """[compared tokens, V] of each row."""
    plain_head: bool
    """True: logits are the last hidden states times the head's weight, with its bias, and nothing else."""
    reach: Reach
    """Which linear layers the tokens of a row pass."""


def take_reference(model: PreTrainedModel, examples: Sequence[Example]) -> Reference:
    """Compute the untouched model's own logits.

    Raises:
        InputError: they are not finite, or depend on later tokens.
    """
    rows = choose_rows(examples)
    with torch.no_grad():
        with _watched(model) as reach:
            logits = tuple(_guarded_logits(model, row) for row in rows)
        if not all(bool(one.isfinite().all()) for one in logits):
            raise InputError(
                "the model's own logits are not finite numbers",
                remedy="its weights may be damaged: fetch them again, or try --dtype float32",
            )
        _check_causal(model, rows[-1])
        return Reference(rows=rows, logits=logits, plain_head=_has_plain_head(model, rows[-1]), reach=reach)


def choose_rows(examples: Sequence[Example]) -> tuple[CheckedRow, ...]:
    """Choose rows of different length among the first hundred, cut to 128 tokens, and the longest of all, whole."""
    by_length = sorted(examples[:100], key=lambda example: example.n_tokens)
    last = len(by_length) - 1
    chosen = sorted({round(i * last / (_CHECKED_ROWS - 1)) for i in range(_CHECKED_ROWS)})
    cut = [
        Example(input_ids=row.input_ids[:CHECKED_TOKENS], target_mask=row.target_mask[:CHECKED_TOKENS])
        for row in (by_length[i] for i in chosen)
    ]
    rows = [CheckedRow(example=row, at=torch.arange(row.n_tokens)) for row in cut]
    lengths = examples.n_tokens if isinstance(examples, Examples) else [example.n_tokens for example in examples]
    longest = examples[int(np.argmax(lengths))]
    if longest.n_tokens > CHECKED_TOKENS:
        half = CHECKED_TOKENS // 2
        at = torch.cat([torch.linspace(0, longest.n_tokens - half - 1, half).long(), torch.arange(-half, 0)])
        rows.append(CheckedRow(example=longest, at=at % longest.n_tokens))
    return tuple(rows)


def _guarded_logits(model: PreTrainedModel, row: CheckedRow) -> torch.Tensor:
    try:
        return _own_logits(model, row)
    except _CANNOT_COMPUTE as error:
        if is_out_of_memory(error) or is_own_fault(error):
            raise
        reason = str(error).split("\n", maxsplit=1)[0][:200] or type(error).__name__
        raise InputError(
            f"{type(model).__name__} cannot compute a row of {row.example.n_tokens} tokens: {reason}",
            remedy="lower max_length if shorter rows work, or give another model",
        ) from error


def _own_logits(model: PreTrainedModel, row: CheckedRow) -> torch.Tensor:
    ids, at = torch.from_numpy(row.example.input_ids)[None].to(model.device), row.at.to(model.device)
    if keeps_logits(model) and len(at) < ids.shape[1]:
        return model(ids, use_cache=False, logits_to_keep=at).logits[0]
    return model(ids, use_cache=False).logits[0][at]


def keeps_logits(model: PreTrainedModel) -> bool:
    """Return True if the model can make the logits of chosen tokens only."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def reach_of_shapes(model: PreTrainedModel) -> Reach | None:
    """Return which layers the tokens of a row pass in a model on the meta device; None where values decide that.

    Experts are passed over, as values decide which tokens they see; conditions on masks and positions count as true.
    """
    ids = torch.zeros(1, _CAUSAL_TOKENS, dtype=torch.int64, device="meta")
    experts = set(expert_parameters(model).values())
    for layer in experts:
        layer.forward = lambda x_ND, *_: x_ND
    try:
        with torch.no_grad(), quiet(), _watched(model) as reach, _TrueConditions():
            model(input_ids=ids, use_cache=False)
    except _CANNOT_COMPUTE:
        return None
    finally:
        for layer in experts:
            del layer.forward
    return reach


class _TrueConditions(TorchDispatchMode):
    """Reads a value of the meta device, which has none, as one."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        del types
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return torch.ones((), dtype=args[0].dtype).item()
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _watched(model: PreTrainedModel) -> Iterator[Reach]:
    """Note which linear layers, and parameters of experts, see every token of a row, and which some or others."""
    wholly, partly = set[str](), set[str]()
    tokens = 0

    def begins(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal tokens
        tokens = (args[0] if args else kwargs["input_ids"]).numel()

    def seen(name: str, x: torch.Tensor) -> None:
        (wholly if x.numel() == tokens * x.shape[-1] else partly).add(name)

    hooks = [model.register_forward_pre_hook(begins, with_kwargs=True)]
    for name, module in model.named_modules():
        if find_kind(module) is not None:
            hooks.append(module.register_forward_pre_hook(lambda _, args, name=name: seen(name, args[0])))
    for name, module in expert_parameters(model).items():
        hooks.append(module.register_forward_pre_hook(lambda _, args, name=name: seen(name, args[0])))
    try:
        yield Reach(wholly=wholly, partly=partly)
    finally:
        for hook in hooks:
            hook.remove()


def _check_causal(model: PreTrainedModel, row: CheckedRow) -> None:
    """Check that other tokens at the end of a row leave the logits before them as they are."""
    ids = torch.from_numpy(row.example.input_ids[:_CAUSAL_TOKENS])[None].to(model.device)
    kept = ids.shape[1] // 2
    other = ids.clone()
    other[:, kept:] = torch.where(ids[:, kept:] == ids[:, :1], ids.min(), ids[:, :1])
    expected, found = (model(x, use_cache=False).logits[0, :kept] for x in (ids, other))
    if relative_difference(found, expected) > TOLERANCE[model.dtype]:
        raise InputError(
            f"{type(model).__name__} is not causal here: its logits of a token depend on later tokens",
            remedy="give a causal language model; a masked one such as BERT has is_decoder false in its config.json",
        )


def _has_plain_head(model: PreTrainedModel, row: CheckedRow) -> bool:
    """Compare the model's logits with its last hidden states times the head's weight, for small and large ones."""
    head, base = model.get_output_embeddings(), model.base_model
    if base is model or not isinstance(head, DENSE_TYPES) or find_kind(head) is None:
        return False
    ids = torch.from_numpy(row.example.input_ids[:_HEAD_TOKENS])[None].to(model.device)
    try:
        hidden = base(ids, use_cache=False).last_hidden_state
        return all(_is_product(model, head, ids, hidden, factor) for factor in _HEAD_FACTORS)
    except MODEL_ERRORS:
        return False  # its base model returns something else


def _is_product(
    model: PreTrainedModel, head: nn.Module, ids: torch.Tensor, hidden: torch.Tensor, factor: float
) -> bool:
    """Let the head see the hidden states times a factor, and compare the logits that come of them."""
    seen: list[torch.Tensor] = []

    def enlarged(_: nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        seen.extend(args)
        return (args[0] * factor,)

    hook = head.register_forward_pre_hook(enlarged)
    try:
        found = model(ids, use_cache=False).logits
    finally:
        hook.remove()
    (own,) = seen
    expected = F.linear(own * factor, head.get_parameter("weight"), getattr(head, "bias", None))
    pairs = ((found, expected), (own, hidden))
    return all(relative_difference(*pair) <= _HEAD_TOLERANCE[model.dtype] for pair in pairs)


def relative_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the root mean square difference of logits, each token's mean taken out, as a share of their own.

    A softmax does not see that mean, which is often the largest part of the logits. Not a number is no agreement.
    """
    wide = torch.promote_types(expected.dtype, torch.float32)
    found, expected = (x.to(wide) - x.to(wide).mean(dim=-1, keepdim=True) for x in (found, expected))
    share = ((found - expected).norm() / expected.norm()).item()
    return math.inf if math.isnan(share) else share
