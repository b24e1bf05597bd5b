"""The backend of Torch's operations: what every model is computed with where nothing faster is right."""

from collections.abc import Sequence

import torch
from torch import nn

from lorascope.modeling.backends.protocol import AdaptedLinear
from lorascope.modeling.backends.torch.attention import attend_in_groups
from lorascope.modeling.backends.torch.dropout import TorchDropoutRows
from lorascope.modeling.backends.torch.head import cross_entropy, head_gradient, head_logits
from lorascope.modeling.backends.torch.multi_lora import TorchMultiLora
from lorascope.modeling.packing.packed_layout import MicroBatchLayout


class TorchBackend:
    """Torch's own operations, on any device. See ``Backend`` for what each does."""

    name = "torch"
    fingerprint = str(torch.__version__)
    shares_prefixes = False

    def multi_lora(self, layers: Sequence[AdaptedLinear], x_NI: torch.Tensor) -> TorchMultiLora:
        """Return how layers with one input compute on it."""
        del x_NI
        return TorchMultiLora(layers)

    def attend(
        self,
        q_NHF: torch.Tensor,
        k_NKF: torch.Tensor,
        v_NKF: torch.Tensor,
        layout: MicroBatchLayout,
        *,
        scaling: float,
        window: int | None,
    ) -> torch.Tensor:
        """Attend causally inside each row of a packed micro-batch, [N, H, F]."""
        return attend_in_groups(q_NHF, k_NKF, v_NKF, layout.groups, scaling=scaling, window=window)

    def dropout_rows(self, keys: torch.Tensor, *, lengths: Sequence[int], widths: Sequence[int]) -> TorchDropoutRows:
        """Return the dropout of neighbouring rows."""
        return TorchDropoutRows(keys=keys, lengths=lengths, widths=widths)

    def head_loss(
        self,
        hidden_CD: torch.Tensor,
        weight_VD: torch.Tensor,
        bias_V: torch.Tensor | None,
        targets_C: torch.Tensor,
        *,
        logits_CV: torch.Tensor,
        grad_CD: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return the cross entropy of each target in nats [C]; write its gradient if it is wanted."""
        head_logits(hidden_CD, weight_VD, bias_V, logits_CV)
        nats_C, dlogits_CV = cross_entropy(logits_CV, targets_C, wants_grad=grad_CD is not None)
        if grad_CD is not None:
            head_gradient(dlogits_CV, weight_VD, grad_CD)
        return nats_C

    def patch_levels(self, *, packed: bool) -> Sequence[str]:
        """Return the one level: the model stays as it is."""
        del packed
        return ("none",)

    def patch(self, model: nn.Module, level: str) -> Sequence[nn.Module]:
        """Replace nothing."""
        del model, level
        return ()


TORCH = TorchBackend()
