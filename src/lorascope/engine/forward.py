"""From rows of tokens to nats: one pass through the frozen base with its adapters."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from lorascope.data.examples import Example
from lorascope.engine.loss import frozen_head_nats
from lorascope.modeling.attention import PACKED
from lorascope.modeling.dropout import DropoutStreams
from lorascope.modeling.kernels.calls import Kernels
from lorascope.modeling.layout import ActivePass, PassLayout, active_pass
from lorascope.modeling.lora import MultiLoraLinear


@dataclass(frozen=True, kw_only=True, slots=True)
class PassRow:
    """One row in a pass."""

    example: Example
    adapter: int
    """Index of the adapter, or ``BASE_ONLY``."""
    stream: tuple[int, int, int] | None = None
    """``(seed, step, row)`` naming its dropout stream; None: no dropout."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FrozenModel:
    """The base with multi-rank layers swapped in, and how rows go through it."""

    model: PreTrainedModel
    layers: dict[str, MultiLoraLinear]
    packing: bool
    """True: rows end to end without padding. False: padded rows."""
    chunked_head: bool
    """True: logits are made from the last hidden state, chunk by chunk. False: the model makes them all."""
    kernels: Kernels | None
    """The compiled kernels, where the model's own operations are replaced by them."""
    own_attention: str
    """Name of the attention that the model was loaded with, used for padded rows."""

    @property
    def device(self) -> torch.device:
        """Return where the model lives."""
        return self.model.device

    def row_nats(self, rows: Sequence[PassRow]) -> list[torch.Tensor]:
        """Send rows through the model; return each row's nats over its targets, float32 or better.

        Rows of one adapter must be neighbours.
        """
        layout = self._layout(rows)
        index, targets = _target_slots(layout, rows)
        with active_pass(ActivePass(layout=layout, streams=self._streams(layout, rows), kernels=self.kernels)):
            if self.chunked_head:
                head = self.model.get_output_embeddings()
                hidden = self._run(self.model.base_model, layout, rows).last_hidden_state.flatten(0, 1)
                nats = frozen_head_nats(hidden.index_select(0, index), head.weight, head.bias, targets, self.kernels)
            else:
                logits = self._run(self.model, layout, rows).logits.flatten(0, 1).index_select(0, index)
                wide = torch.promote_types(logits.dtype, torch.float32)
                nats = F.cross_entropy(logits.to(wide), targets, reduction="none")
        return list(nats.split([row.example.n_targets for row in rows]))

    def logits(self, rows: Sequence[PassRow]) -> list[torch.Tensor]:
        """Return each row's logits, [tokens, V], made the way ``row_nats`` makes them."""
        layout = self._layout(rows)
        with torch.no_grad(), active_pass(ActivePass(layout=layout, kernels=self.kernels)):
            if self.chunked_head:
                hidden = self._run(self.model.base_model, layout, rows).last_hidden_state.flatten(0, 1)
                logits = self.model.get_output_embeddings()(hidden)
            else:
                logits = self._run(self.model, layout, rows).logits.flatten(0, 1)
        return [logits[start : start + length] for start, length in zip(layout.starts, layout.lengths, strict=True)]

    def _layout(self, rows: Sequence[PassRow]) -> PassLayout:
        return PassLayout(
            lengths=tuple(row.example.n_tokens for row in rows),
            adapters=tuple(row.adapter for row in rows),
            padded=not self.packing,
            device=self.device,
        )

    def _streams(self, layout: PassLayout, rows: Sequence[PassRow]) -> DropoutStreams | None:
        names = [row.stream for row in rows if row.stream is not None]
        assert len(names) in {0, len(rows)}, "dropout is on for all rows of a pass or for none"
        if not names:
            return None
        return DropoutStreams(names, lengths=layout.lengths, widths=layout.widths, kernels=self.kernels)

    def _run(self, part: torch.nn.Module, layout: PassLayout, rows: Sequence[PassRow]) -> "_Output":
        wanted = PACKED if self.packing else self.own_attention
        if self.model.config._attn_implementation != wanted:
            self.model.set_attn_implementation(wanted)
        input_ids = layout.lay_out([torch.from_numpy(row.example.input_ids) for row in rows])
        if self.packing:
            output: _Output = part(input_ids=input_ids, position_ids=layout.positions, use_cache=False)
        else:
            output = part(input_ids=input_ids, attention_mask=layout.attention_mask, use_cache=False)
        return output


class _Output:
    """The two fields of Transformers' outputs that are read here."""

    last_hidden_state: torch.Tensor
    logits: torch.Tensor


def _target_slots(layout: PassLayout, rows: Sequence[PassRow]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the slots whose hidden states predict the targets, and the targets' ids, both int64 [M]."""
    index, targets = [], []
    for row, start in zip(rows, layout.starts, strict=True):
        at = torch.from_numpy(row.example.target_mask).nonzero().squeeze(1)
        index.append(at - 1 + start)
        targets.append(torch.from_numpy(row.example.input_ids)[at])
    return torch.cat(index).to(layout.device), torch.cat(targets).to(layout.device)
