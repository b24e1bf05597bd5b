"""A throwaway backend: Torch's operations, counted. A test registers it with one line."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import nn

from lorascope.message import Message
from lorascope.modeling.backends.protocol import AdaptedLinear, DropoutRows, MultiLora
from lorascope.modeling.backends.torch.backend import TORCH
from lorascope.modeling.packing.packed_layout import MicroBatchLayout


class CountingBackend:
    """All that a backend needs is here."""

    name = "counting"
    fingerprint = "1"
    shares_prefixes = False

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def multi_lora(self, layers: Sequence[AdaptedLinear], x_NI: torch.Tensor) -> MultiLora:
        self.calls["multi_lora"] += 1
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
        self.calls["attend"] += 1
        return TORCH.attend(q_NHF, k_NKF, v_NKF, layout, scaling=scaling, window=window)

    def dropout_rows(self, keys: torch.Tensor, *, lengths: Sequence[int], widths: Sequence[int]) -> DropoutRows:
        self.calls["dropout_rows"] += 1
        return TORCH.dropout_rows(keys, lengths=lengths, widths=widths)

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
        self.calls["head_loss"] += 1
        return TORCH.head_loss(hidden_CD, weight_VD, bias_V, targets_C, logits_CV=logits_CV, grad_CD=grad_CD)

    def patch_levels(self, *, packed: bool) -> Sequence[str]:
        del packed
        return ("norms",)

    def patch(self, model: nn.Module, level: str) -> Sequence[nn.Module]:
        """Count the calls of the last norm."""
        assert level == "norms"
        norm = model.get_submodule("model.norm")
        own = norm.forward

        def forward(hidden_states: torch.Tensor) -> torch.Tensor:
            self.calls["norm"] += 1
            normed: torch.Tensor = own(hidden_states)
            return normed

        norm.forward = forward
        return [norm]


def load_counting_backend(device: torch.device) -> tuple[CountingBackend, Message]:
    del device
    return CountingBackend(), Message("verbatim", text="made for a test")
