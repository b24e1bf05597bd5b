"""The base model of a study: loaded, frozen, and known to fit the study's rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from lorascope.data.dataset import Examples
from lorascope.errors import InputError
from lorascope.message import Message
from lorascope.modeling.device_dtype import choose_dtype
from lorascope.modeling.load import ModelSource, has_adapter, hash_weights, load_model


@dataclass(frozen=True, kw_only=True, eq=False)
class BaseModel:
    """A frozen model and how it was loaded."""

    model: PreTrainedModel
    device: torch.device
    """As asked for: the model's own device also has an index."""
    sha256: str
    """Of the weights, in hex."""
    dtype_reason: Message
    notes: tuple[Message, ...]


def load_base(
    source: ModelSource, rows: Sequence[Examples], *, name: str, dtype: str, device: torch.device
) -> BaseModel:
    """Load the model of a study.

    Args:
        source: the model.
        rows: all rows that will go through it.
        name: the model as the study names it.
        dtype: a precision, or ``auto``.
        device: where it is loaded to.

    Raises:
        InputError: the model cannot be loaded, or the rows do not fit it.
    """
    chosen, reason = choose_dtype(dtype, device)
    model = load_model(source, dtype=chosen, device=device)
    _check_rows(model, rows, name)
    return BaseModel(
        model=model,
        device=device,
        sha256=hash_weights(model),
        dtype_reason=reason,
        notes=(*_dropout_note(model.config), *((Message("note.adapter_in_base"),) if has_adapter(source) else ())),
    )


def _check_rows(model: PreTrainedModel, rows: Sequence[Examples], name: str) -> None:
    """Check that the model has positions for the longest row, and an embedding for every token."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    longest = max(int(part.n_tokens.max(initial=0)) for part in rows)
    if isinstance(limit, int) and 0 < limit < longest:  # -1 means as many as there are
        raise InputError(
            f"rows of up to {longest} tokens, but the model {name} has {limit} positions",
            remedy=f"set max_length to at most {limit}",
        )
    largest = max(part.largest_id for part in rows)
    known = len(model.get_input_embeddings().get_parameter("weight"))
    if largest >= known:
        raise InputError(
            f"the tokenizer of {name} makes token {largest}, but the model has embeddings of {known} tokens",
            remedy="give the model with its own tokenizer, or resize its embeddings first",
        )


def _dropout_note(config: object) -> tuple[Message, ...]:
    names = ("dropout", "attention_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop", "hidden_dropout")
    rates = {name: getattr(config, name, None) for name in names}
    used = ", ".join(f"{name} {rate}" for name, rate in rates.items() if isinstance(rate, float) and rate > 0)
    return (Message("note.no_base_dropout", used=used),) if used else ()
