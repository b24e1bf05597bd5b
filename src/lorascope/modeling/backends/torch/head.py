"""Cross entropy under a frozen output head in Torch's operations, for the tokens of one chunk.

Shape legend: C tokens of a chunk, D width of the hidden state, V vocabulary.
"""

import torch
from torch.nn import functional as F

from lorascope.modeling.backends.chunks import even_chunks

_PRODUCT = 256
"""Tokens of one product with the logits' gradients; docs/decisions has the measurements."""


def head_logits(
    hidden_CD: torch.Tensor, weight_VD: torch.Tensor, bias_V: torch.Tensor | None, logits_CV: torch.Tensor
) -> None:
    """Write the logits."""
    if bias_V is None:
        torch.mm(hidden_CD, weight_VD.T, out=logits_CV)
    else:
        torch.addmm(bias_V, hidden_CD, weight_VD.T, out=logits_CV)


def head_gradient(dlogits_CV: torch.Tensor, weight_VD: torch.Tensor, grad_CD: torch.Tensor) -> None:
    """Write the gradient with respect to the hidden states from that of the logits."""
    for rows in even_chunks(len(dlogits_CV), _PRODUCT):
        torch.mm(dlogits_CV[rows], weight_VD, out=grad_CD[rows])


def cross_entropy(
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
