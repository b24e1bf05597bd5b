"""The backend of compiled kernels on a CPU; calls with tensors that they do not support fall back to Torch."""

from collections.abc import Sequence

import torch
from torch import nn

from lorascope.message import Message
from lorascope.modeling.backends.cpu.autograd import attend
from lorascope.modeling.backends.cpu.bindings import Kernels
from lorascope.modeling.backends.cpu.build import load_kernels
from lorascope.modeling.backends.cpu.dropout import KernelDropoutRows
from lorascope.modeling.backends.cpu.multi_lora import KernelMultiLora, supports_multi_lora
from lorascope.modeling.backends.cpu.patch_modules import LEVELS, patch
from lorascope.modeling.backends.protocol import AdaptedLinear, MultiLora
from lorascope.modeling.backends.torch.backend import TORCH
from lorascope.modeling.backends.torch.head import cross_entropy, head_gradient, head_logits
from lorascope.modeling.packing.packed_layout import MicroBatchLayout


def load_cpu_backend(device: torch.device) -> tuple["CpuBackend | None", Message]:
    """Return the backend and how its kernels were compiled, or None and the reason."""
    if device.type != "cpu":
        return None, Message("kernels.cpu_only", device=str(device))
    library, how = load_kernels()
    return (None if library is None else CpuBackend(Kernels(library))), how


class CpuBackend:
    """Compiled kernels. See ``Backend`` for what each operation does."""

    name = "cpu"
    shares_prefixes = True

    def __init__(self, kernels: Kernels) -> None:
        self.kernels = kernels
        self.fingerprint = kernels.file

    def multi_lora(self, layers: Sequence[AdaptedLinear], x_NI: torch.Tensor) -> MultiLora:
        """Return how layers with one input compute on it."""
        if supports_multi_lora(self.kernels, layers, x_NI):
            return KernelMultiLora(self.kernels, layers)
        return TORCH.multi_lora(layers, x_NI)

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
        if not self.kernels.takes(q_NHF):
            return TORCH.attend(q_NHF, k_NKF, v_NKF, layout, scaling=scaling, window=window)
        return attend(self.kernels, (q_NHF, k_NKF, v_NKF), layout, scaling=scaling, window=window)

    def dropout_rows(self, keys: torch.Tensor, *, lengths: Sequence[int], widths: Sequence[int]) -> KernelDropoutRows:
        """Return the dropout of neighbouring rows."""
        return KernelDropoutRows(kernels=self.kernels, keys=keys, lengths=lengths, widths=widths)

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
        multiplies = self.kernels.supports_matmul(hidden_CD, weight_VD, bias_V)
        if multiplies:
            self.kernels.head_forward(hidden_CD, weight_VD, bias_V, logits_CV)
        else:
            head_logits(hidden_CD, weight_VD, bias_V, logits_CV)
        dlogits_CV, wants_grad = logits_CV, grad_CD is not None
        if self.kernels.takes(logits_CV):
            nats_C = self.kernels.cross_entropy_(logits_CV, targets_C, wants_grad=wants_grad)
        else:
            nats_C, dlogits_CV = cross_entropy(logits_CV, targets_C, wants_grad=wants_grad)
        if grad_CD is not None and multiplies:
            self.kernels.head_backward(dlogits_CV, weight_VD, grad_CD)
        elif grad_CD is not None:
            head_gradient(dlogits_CV, weight_VD, grad_CD)
        return nats_C

    def patch_levels(self, *, packed: bool) -> Sequence[str]:
        """Return how much of a model's modules the kernels may replace; padded rows have attention of their own."""
        return LEVELS if packed else LEVELS[-1:]

    def patch(self, model: nn.Module, level: str) -> Sequence[nn.Module]:
        """Replace the ``forward`` of modules of a model; return these."""
        return patch(model, self.kernels, level)
