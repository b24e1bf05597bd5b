"""Cross entropy under the output head, a few tokens at a time.

A frozen head has no gradient of its own, so the gradient of each token's loss with respect to its hidden state is known
as soon as its logits are: it is formed in the forward pass, and the logits of a micro-batch never exist together. Those
of a trained head are made again in the backward pass.

Shape legend: M target tokens, C tokens of a chunk, D width of the hidden state, V vocabulary.
"""

from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lorascope.modeling.backends.chunks import even_chunks
from lorascope.modeling.backends.protocol import Backend

_CHUNK = 512
"""Tokens whose logits exist at once; docs/decisions has the measurements."""


class _FrozenHeadLoss(torch.autograd.Function):
    """Nats of each target token; the forward pass forms the gradient of each."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd functions take positional arguments only
        ctx: Any,  # noqa: ANN401 - the type of autograd's context is private to torch
        hidden_MD: torch.Tensor,
        weight_VD: torch.Tensor,
        bias_V: torch.Tensor | None,
        targets_M: torch.Tensor,
        wants_grad: bool,
        backend: Backend,
        hits_M: torch.Tensor | None,
    ) -> torch.Tensor:
        hidden_MD = hidden_MD.contiguous()
        grad_MD = torch.empty_like(hidden_MD) if wants_grad else None
        # one memory for all chunks: new pages of this size cost a fifth of the products' time
        memory_CV = hidden_MD.new_empty(min(_CHUNK, len(targets_M)), len(weight_VD))
        nats = []
        for chunk in even_chunks(len(targets_M), _CHUNK):
            logits_CV, targets_C = memory_CV[: chunk.stop - chunk.start], targets_M[chunk]
            grad_CD = None if grad_MD is None else grad_MD[chunk]
            hidden_CD = hidden_MD[chunk]
            nats.append(
                backend.head_loss(hidden_CD, weight_VD, bias_V, targets_C, logits_CV=logits_CV, grad_CD=grad_CD)
            )
            if hits_M is not None:
                hits_M[chunk] = likeliest(logits_CV, targets_C)
        if grad_MD is not None:
            ctx.save_for_backward(grad_MD)
        return torch.cat(nats)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        (grad_MD,) = ctx.saved_tensors
        # in float32, for 1 / tokens rounded to bfloat16 would be a wrong learning rate
        return (grad_MD * grads[0][:, None]).to(grad_MD.dtype), None, None, None, None, None, None


def frozen_head_nats(  # noqa: PLR0917 - tensors in the order of the formula
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    backend: Backend,
    hits: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the cross entropy of each target token in nats, float32 or better [M].

    Args:
        hidden: [M, D] last hidden states that predict the targets.
        weight: [V, D] of the frozen head.
        bias: [V] or None.
        targets: int64 [M].
        backend: computes it.
        hits: bool [M], set to True for targets that are the likeliest token, from the same logits; only without a
            gradient, whose memory is theirs.
    """
    wants_grad = torch.is_grad_enabled() and hidden.requires_grad
    assert not (wants_grad and hits is not None)
    nats: torch.Tensor = _FrozenHeadLoss.apply(hidden, weight, bias, targets, wants_grad, backend, hits)
    return nats


def likeliest(logits_CV: torch.Tensor, targets_C: torch.Tensor) -> torch.Tensor:
    """Return True for each target that has the largest logit, of equal ones the first, bool [C]."""
    return logits_CV.argmax(1) == targets_C


def trained_head_nats(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    hits: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the cross entropy of each target token under a head that is trained itself; see ``frozen_head_nats``."""
    rounded = [None if one is None else one.to(hidden.dtype) for one in (weight, bias)]
    wide = torch.promote_types(hidden.dtype, torch.float32)

    def nats(chunk: slice) -> torch.Tensor:
        logits = F.linear(hidden[chunk], rounded[0], rounded[1])  # type: ignore[arg-type]  # the first is never None
        if hits is not None:
            hits[chunk] = likeliest(logits, targets[chunk])
        return F.cross_entropy(logits.to(wide), targets[chunk], reduction="none")

    chunks = even_chunks(len(targets), _CHUNK)
    return torch.cat([checkpoint(nats, chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks])
