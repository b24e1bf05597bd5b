"""Cross entropy under a frozen output head, a few tokens at a time.

The head has no gradient of its own, so the gradient of each token's loss with respect to its hidden state is known as
soon as its logits are: it is formed in the forward pass, and the logits of a pass never exist together.

Shape legend: M target tokens, C tokens of a chunk, D width of the hidden state, V vocabulary.
"""

from typing import Any

import torch
from torch.nn import functional as F

from lorascope.modeling.backends.cpu.bindings import Kernels

_CHUNK = 512
"""Tokens whose logits exist at once."""
_PRODUCT = 256
"""Tokens of one product with the logits' gradients. docs/decisions has the measurements of both."""
_ROWS = 16
"""Parts are a multiple of this many tokens, but for the last."""


class _FrozenHeadLoss(torch.autograd.Function):
    """Nats of each target token, with the gradient of each formed beside it."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd functions take positional arguments only
        ctx: Any,  # noqa: ANN401 - the type of autograd's context is private to torch
        hidden_MD: torch.Tensor,
        weight_VD: torch.Tensor,
        bias_V: torch.Tensor | None,
        targets_M: torch.Tensor,
        wants_grad: bool,
        kernels: Kernels | None,
    ) -> torch.Tensor:
        nats = []
        hidden_MD = hidden_MD.contiguous()
        fits = kernels is not None and kernels.supports_matmul(hidden_MD, weight_VD, bias_V)
        multiplying = kernels if fits else None
        grad_MD = torch.empty_like(hidden_MD) if wants_grad else None
        # one memory for all chunks: new pages of this size cost a fifth of the products' time
        memory_CV = hidden_MD.new_empty(min(_CHUNK, len(targets_M)), len(weight_VD))
        for chunk in _even_parts(len(targets_M), _CHUNK):
            logits_CV = memory_CV[: chunk.stop - chunk.start]
            if multiplying is not None:
                multiplying.head_forward(hidden_MD[chunk], weight_VD, bias_V, logits_CV)
            elif bias_V is None:
                torch.mm(hidden_MD[chunk], weight_VD.T, out=logits_CV)
            else:
                torch.addmm(bias_V, hidden_MD[chunk], weight_VD.T, out=logits_CV)
            if kernels is not None and kernels.takes(logits_CV):
                nats.append(kernels.cross_entropy_(logits_CV, targets_M[chunk], wants_grad=wants_grad))
                dlogits_CV = logits_CV
            else:
                part, dlogits_CV = _cross_entropy(logits_CV, targets_M[chunk], wants_grad=wants_grad)
                nats.append(part)
            if grad_MD is not None and multiplying is not None:
                multiplying.head_backward(dlogits_CV, weight_VD, grad_MD[chunk])
            elif grad_MD is not None:
                for rows in _even_parts(len(dlogits_CV), _PRODUCT):
                    torch.mm(dlogits_CV[rows], weight_VD, out=grad_MD[chunk][rows])
        if grad_MD is not None:
            ctx.save_for_backward(grad_MD)
        return torch.cat(nats)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        (grad_MD,) = ctx.saved_tensors
        # in float32, for 1 / tokens rounded to bfloat16 would be a wrong learning rate
        return (grad_MD * grads[0][:, None]).to(grad_MD.dtype), None, None, None, None, None


def _even_parts(n: int, most: int) -> list[slice]:
    """Cut n tokens into as few parts as there can be, of much the same size: products of few rows are slow."""
    size = -(-n // max(1, -(-n // most)))
    size = min(most, max(_ROWS, size + -size % _ROWS))
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _cross_entropy(
    logits_CV: torch.Tensor, targets_C: torch.Tensor, *, wants_grad: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the nats of each target and, where it is wanted, the gradient of their sum; else the logits."""
    log_p_CV = F.log_softmax(logits_CV, dim=1, dtype=torch.promote_types(logits_CV.dtype, torch.float32))
    nats_C = -log_p_CV.gather(1, targets_C[:, None]).squeeze(1)
    if not wants_grad:
        return nats_C, logits_CV
    p_CV = log_p_CV.exp_()
    p_CV.scatter_add_(1, targets_C[:, None], p_CV.new_tensor(-1.0).expand(len(targets_C), 1))
    return nats_C, p_CV.to(logits_CV.dtype)


def frozen_head_nats(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    kernels: Kernels | None = None,
) -> torch.Tensor:
    """Return the cross entropy of each target token in nats, float32 or better [M].

    Args:
        hidden: [M, D] last hidden states that predict the targets.
        weight: [V, D] of the frozen head.
        bias: [V] or None.
        targets: int64 [M].
        kernels: the compiled kernels, where they may be used.
    """
    wants_grad = torch.is_grad_enabled() and hidden.requires_grad
    nats: torch.Tensor = _FrozenHeadLoss.apply(hidden, weight, bias, targets, wants_grad, kernels)
    return nats
