"""Forward pass of a micro-batch through the frozen base and its adapters: from rows of tokens to nats."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from lorascope.data.dataset import Example
from lorascope.engine.loss import frozen_head_nats, likeliest, trained_head_nats
from lorascope.engine.oom import MicroBatchLimit
from lorascope.engine.reference import keeps_logits
from lorascope.errors import UnsupportedModelError
from lorascope.modeling.adapters.adapter import Adapter, attach
from lorascope.modeling.adapters.dropout import PREFIX_NAMES, DropoutStreams
from lorascope.modeling.adapters.lora import MultiLoraLinear
from lorascope.modeling.adapters.modules_to_save import ModuleToSave
from lorascope.modeling.backends.protocol import Backend
from lorascope.modeling.backends.torch.backend import TORCH
from lorascope.modeling.load import quiet
from lorascope.modeling.packing.attention import PACKED
from lorascope.modeling.packing.current import ActiveMicroBatch, active_microbatch
from lorascope.modeling.packing.packed_layout import MicroBatchLayout
from lorascope.modeling.packing.prefixes import PrefixGroup


@dataclass(frozen=True, kw_only=True, slots=True)
class MicroBatchRow:
    """One row of a micro-batch."""

    example: Example
    adapter: int
    """Index of the adapter, or ``BASE_ONLY``."""
    stream: tuple[int, int, int] | None = None
    """``(seed, step, row)`` naming its dropout stream; None: no dropout."""
    prefix_group: PrefixGroup | None = None
    """The rows of its batch with which it shares a prefix, computed once for those in one micro-batch."""

    @property
    def shared(self) -> int:
        """Count the tokens of the shared prefix."""
        return 0 if self.prefix_group is None else self.prefix_group.shared


@dataclass(frozen=True, kw_only=True, eq=False)
class FrozenModel:
    """The base with multi-rank layers swapped in, and how rows go through it."""

    model: PreTrainedModel
    layers: dict[str, MultiLoraLinear]
    packing: bool
    """True: rows end to end without padding. False: padded rows."""
    chunked_head: bool
    """True: logits are made from the last hidden state, chunk by chunk. False: the model makes them itself."""
    backend: Backend
    """Computes the operations that are not the model's own, and those that it patched."""
    modules_to_save: Mapping[str, ModuleToSave] = field(default_factory=dict)
    """Modules that each trial trains whole, by name."""
    own_attention: str
    """Name of the attention that the model was loaded with, used for padded rows."""
    alone: bool = False
    """True: each row goes through the model alone; neither packed nor padded rows keep its logits."""
    switch: int | None = None
    """Longer rows have other positions, and never share a micro-batch with the rest; None: all have the same."""
    limit: MicroBatchLimit = field(default_factory=MicroBatchLimit)
    """The largest micro-batch that fitted into memory in this process."""

    @property
    def device(self) -> torch.device:
        """Return the model's device."""
        return self.model.device

    def attach(self, adapters: list[Adapter]) -> None:
        """Make these the model's adapters, in this order; an empty list detaches all."""
        attach(self.layers, adapters, self.modules_to_save)

    @property
    def accelerated(self) -> bool:
        """Return True if a backend computes that is faster than Torch."""
        return self.backend.name != TORCH.name

    @property
    def can_share(self) -> bool:
        """Return True if rows of a micro-batch can share a prefix."""
        return self.packing and self.backend.shares_prefixes

    def row_nats(
        self,
        rows: Sequence[MicroBatchRow],
        *,
        check_stop: Callable[[], None] = lambda: None,
        hits: list[torch.Tensor] | None = None,
    ) -> list[torch.Tensor]:
        """Send rows through the model; return each row's nats over its targets, float32 or better.

        Args:
            rows: those of one adapter must be neighbours.
            check_stop: called in every adapted layer, forward and backward.
            hits: gets for each row which of its targets are the likeliest token, bool; only without a gradient.
        """
        sent = _lay_out(rows, padded=not self.packing, device=self.device)
        wanted = _targets(sent, rows)
        streams = self._streams(sent)
        active = ActiveMicroBatch(layout=sent.layout, backend=self.backend, streams=streams, check_stop=check_stop)
        hits_M = None if hits is None else torch.empty_like(wanted.tokens, dtype=torch.bool)
        with active_microbatch(active):
            if self.chunked_head:
                hidden = self._run(self.model.base_model, sent).last_hidden_state.flatten(0, 1)
                nats = self._head_nats(hidden.index_select(0, wanted.slots), wanted, sent.layout, hits_M)
            else:
                logits = self._own_logits(sent, wanted.slots)
                wide = torch.promote_types(logits.dtype, torch.float32)
                nats = F.cross_entropy(logits.to(wide), wanted.tokens, reduction="none")
                if hits_M is not None:
                    hits_M.copy_(likeliest(logits, wanted.tokens))
        sizes = [row.example.n_targets for row in rows]
        if hits is not None and hits_M is not None:
            hits += hits_M.index_select(0, wanted.places).split(sizes)
        return list(nats.index_select(0, wanted.places).split(sizes))

    def _head_nats(
        self, hidden_MD: torch.Tensor, wanted: "_Targets", layout: MicroBatchLayout, hits_M: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the nats of each target, under the output head or each trial's own copy of it."""
        head = self.model.get_output_embeddings()
        if not isinstance(head, ModuleToSave) or not head.copies:
            return frozen_head_nats(hidden_MD, head.weight, head.bias, wanted.tokens, self.backend, hits_M)
        pieces = []
        for slots, copy in head.runs(layout):  # the slots of targets ascend
            ends = torch.tensor([slots.start, slots.stop], device=wanted.slots.device)
            own = slice(*torch.searchsorted(wanted.slots, ends).tolist())
            hidden, tokens, hits = hidden_MD[own], wanted.tokens[own], None if hits_M is None else hits_M[own]
            if copy is not None:
                pieces.append(trained_head_nats(hidden, copy["weight"], copy.get("bias"), tokens, hits))
            elif len(tokens):
                pieces.append(frozen_head_nats(hidden, head.weight, head.bias, tokens, self.backend, hits))
        return torch.cat(pieces)

    def logits(self, rows: Sequence[MicroBatchRow], at: Sequence[torch.Tensor] | None = None) -> list[torch.Tensor]:
        """Return the logits of chosen tokens of each row, or of all, [tokens, V], made the way ``row_nats`` makes them.

        Raises:
            UnsupportedModelError: rows are packed, and the model's masks are not those of packed attention.
        """
        sent = _lay_out(rows, padded=not self.packing, device=self.device)
        slots = [sent.layout.row_slots(last) for last in sent.last]
        if at is not None:
            slots = [own[chosen] for own, chosen in zip(slots, at, strict=True)]
        wanted = torch.cat(slots).to(self.device)
        active = ActiveMicroBatch(layout=sent.layout, backend=self.backend, checks_masks=True)
        with torch.no_grad(), active_microbatch(active):
            if self.chunked_head:
                hidden = self._run(self.model.base_model, sent).last_hidden_state.flatten(0, 1)
                logits = self.model.get_output_embeddings()(hidden).index_select(0, wanted)
            else:
                logits = self._own_logits(sent, wanted)
        return list(logits.split([len(own) for own in slots]))

    def _own_logits(self, sent: "_Sent", slots: torch.Tensor) -> torch.Tensor:
        """Return the logits of some slots, [M, V], by the model's own head, which sees only those where it can."""
        whole = isinstance(self.model.get_output_embeddings(), ModuleToSave)
        if len(sent.input_ids) == 1 and keeps_logits(self.model) and not whole:
            return self._run(self.model, sent, logits_to_keep=slots).logits[0]
        return self._run(self.model, sent).logits.flatten(0, 1).index_select(0, slots)

    def _streams(self, sent: "_Sent") -> DropoutStreams | None:
        names = [stream for stream in sent.streams if stream is not None]
        assert len(names) in {0, len(sent.streams)}, "dropout is on for all rows of a micro-batch or for none"
        if not names:
            return None
        return DropoutStreams(names, lengths=sent.layout.lengths, widths=sent.layout.widths, backend=self.backend)

    def set_attention(self, name: str) -> None:
        """Let the model attend by the function of this name. Raises UnsupportedModelError where it does not."""
        if self.model.config._attn_implementation != name:
            with quiet():
                self.model.set_attn_implementation(name)
            if self.model.config._attn_implementation != name:
                raise UnsupportedModelError("attention of its own only")

    def _run(self, part: torch.nn.Module, sent: "_Sent", **arguments: torch.Tensor) -> "_Output":
        self.set_attention(PACKED if self.packing else self.own_attention)
        if self.packing:
            arguments["position_ids"] = sent.layout.positions
        elif not self.alone:
            arguments["attention_mask"] = sent.layout.attention_mask
        output: _Output = part(input_ids=sent.input_ids, use_cache=False, **arguments)
        return output


class _Output:
    """The two fields of Transformers' outputs that are read here."""

    last_hidden_state: torch.Tensor
    logits: torch.Tensor


class _Span(NamedTuple):
    """A row, a prefix that rows share, or the rest of a row behind it."""

    tokens: torch.Tensor
    adapter: int
    parent: int
    """Index of the span with the prefix, or -1."""
    stream: tuple[int, int, int] | None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Sent:
    """Rows laid out as the spans of a micro-batch."""

    layout: MicroBatchLayout
    input_ids: torch.Tensor
    """int64, laid out as the micro-batch."""
    streams: Sequence[tuple[int, int, int] | None]
    """Name of each span's dropout stream."""
    last: Sequence[int]
    """Index of the span that each row ends with."""


def _lay_out(rows: Sequence[MicroBatchRow], *, padded: bool, device: torch.device) -> _Sent:
    spans: list[_Span] = []
    last: list[int] = []
    prefixes: dict[tuple[int, PrefixGroup | None], int] = {}
    for row in rows:
        ids, prefix = torch.from_numpy(row.example.input_ids), (row.adapter, row.prefix_group)
        if row.prefix_group is not None and prefix not in prefixes:
            prefixes[prefix] = len(spans)
            stream = None if row.stream is None else (*row.stream[:2], PREFIX_NAMES + row.prefix_group.rows[0])
            spans.append(_Span(ids[: row.shared], row.adapter, -1, stream))
        last.append(len(spans))
        spans.append(_Span(ids[row.shared :], row.adapter, prefixes.get(prefix, -1), row.stream))
    layout = MicroBatchLayout(
        lengths=tuple(len(span.tokens) for span in spans),
        adapters=tuple(span.adapter for span in spans),
        parents=tuple(span.parent for span in spans),
        padded=padded,
        device=device,
    )
    return _Sent(
        layout=layout,
        input_ids=layout.lay_out([span.tokens for span in spans]),
        streams=[span.stream for span in spans],
        last=last,
    )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Targets:
    """The predictions of a micro-batch; a target in a shared prefix belongs to several rows and is predicted once."""

    slots: torch.Tensor
    """int64 [M], the slots whose hidden states predict."""
    tokens: torch.Tensor
    """int64 [M], the tokens to predict."""
    places: torch.Tensor
    """int64, the place among the M of each target of each row, row after row."""


def _targets(sent: _Sent, rows: Sequence[MicroBatchRow]) -> _Targets:
    slots, tokens = [], []
    for row, last in zip(rows, sent.last, strict=True):
        at = torch.from_numpy(row.example.target_mask).nonzero().squeeze(1)
        slots.append(sent.layout.row_slots(last)[at - 1])
        tokens.append(torch.from_numpy(row.example.input_ids)[at])
    all_tokens = torch.cat(tokens)
    # the last token of a prefix predicts another token in each row: a prediction is a slot with its target
    base = int(all_tokens.max()) + 1
    pairs, places = (torch.cat(slots) * base + all_tokens).unique(return_inverse=True)
    device = sent.layout.device
    return _Targets(slots=(pairs // base).to(device), tokens=(pairs % base).to(device), places=places.to(device))
