"""Protocol of a backend: the operations of a training step that differ with what computes them.

Shape legend: N slots of the micro-batch, n slots of neighbouring rows, I in_features, O out_features, R rank, H heads,
K key-value heads, F features of a head, C tokens of a chunk, D width of the hidden state, V vocabulary.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from lorascope.modeling.adapters.linear_kinds.protocol import LinearKind
from lorascope.modeling.packing.packed_layout import MicroBatchLayout


class Dropout(Protocol):
    """One layer's dropout of neighbouring rows; it zeroes and does not scale."""

    def dropped(self, x_nI: torch.Tensor) -> torch.Tensor:
        """Return x where it is kept and 0 elsewhere."""

    def add_dropped_(self, out_nI: torch.Tensor, x_nI: torch.Tensor) -> None:
        """Add x to ``out`` where it is kept."""


class DropoutRows(Protocol):
    """Neighbouring rows of a micro-batch with the keys of their random bits."""

    def at(self, draw: int, p: float) -> Dropout:
        """Return the dropout of the layer that draws after ``draw`` others."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerAdapter:
    """One adapter's weights in one layer."""

    A: torch.Tensor
    """[R, I], the trained weight, a leaf."""
    B: torch.Tensor
    """[O, R]"""
    scale: float
    dropout: float
    initial: tuple[torch.Tensor, torch.Tensor] | None = None
    """A and B at first, frozen, where they are not of an update of zero: scale * B A x of them is subtracted."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Segment:
    """Slots of the micro-batch that one adapter works on."""

    adapter: LayerAdapter
    slots: slice
    factor: float
    """The scale of the update, with the 1 / (1 - p) that keeps its mean under dropout."""
    dropout: Dropout | None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AdaptedLinear:
    """A frozen linear layer with the segments of the micro-batch that have adapters."""

    base: nn.Module
    kind: LinearKind
    segments: Sequence[Segment]


class MultiLora(Protocol):
    """Both directions of linear layers with one input and their adapters.

    y = x W^T + b + factor * dropped(x) A^T B^T in each segment (Hu et al. 2021, arXiv 2106.09685, section 4.1).
    """

    def forward(self, x_NI: torch.Tensor) -> tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]:
        """Return the output of each layer, [N, O], and what the backward pass needs besides x."""

    def backward(
        self, x_NI: torch.Tensor, kept: Sequence[torch.Tensor], grads_NO: Sequence[torch.Tensor], *, wants_dx: bool
    ) -> tuple[torch.Tensor | None, Sequence[torch.Tensor | None]]:
        """Return dx if it is wanted, and the gradient of A and B of each segment in turn.

        A gradient is None if it was added to the leaf's own.
        """


class Backend(Protocol):
    """One way to compute a training step; every operation accepts any tensors of the model."""

    name: str
    fingerprint: str
    """Identifies what was compiled, for which processor; a backend of another fingerprint may be faster or slower."""
    shares_prefixes: bool
    """True: attention can read the prefix of a row in another place of the micro-batch."""

    def multi_lora(self, layers: Sequence[AdaptedLinear], x_NI: torch.Tensor) -> MultiLora:
        """Return how layers with one input compute on it; ``x_NI`` is contiguous."""

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
        """Attend causally inside each row of a packed micro-batch, [N, H, F].

        Args:
            q_NHF: queries.
            k_NKF: keys.
            v_NKF: values.
            layout: where rows lie.
            scaling: factor of the scores.
            window: most tokens that a query attends to, its own included; None: all.
        """

    def dropout_rows(self, keys: torch.Tensor, *, lengths: Sequence[int], widths: Sequence[int]) -> DropoutRows:
        """Return the dropout of neighbouring rows.

        Args:
            keys: int32 [rows, 4], the bits of unsigned words, on the CPU.
            lengths: real tokens of each row.
            widths: slots of each row.
        """

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
        """Return the cross entropy of each target in nats, float32 or better [C].

        Args:
            hidden_CD: hidden states that predict the targets.
            weight_VD: weight of the frozen output head.
            bias_V: its bias, or None.
            targets_C: int64 tokens.
            logits_CV: memory for the logits, overwritten; without a gradient it holds them afterwards.
            grad_CD: where the gradient of the sum with respect to the hidden states goes, if it is wanted.
        """

    def patch_levels(self, *, packed: bool) -> Sequence[str]:
        """Return how much of a model the backend may patch, most first: the values of ``level`` below, one at least."""

    def patch(self, model: nn.Module, level: str) -> Sequence[nn.Module]:
        """Replace the ``forward`` of modules of a model; return these, for ``unpatch``."""


def unpatch(modules: Iterable[nn.Module]) -> None:
    """Restore the own forward of modules that a backend patched."""
    for module in modules:
        del module.forward
