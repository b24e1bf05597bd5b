"""Compare what a GGUF file holds with what Transformers made of it: what it passes over makes another model."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import gguf as gguf_format
from transformers import PreTrainedModel

_UNSCALED = {"", "none"}


@contextmanager
def parsed_once() -> Iterator[None]:
    """Keep what Transformers reads of a GGUF file, which it parses anew for configuration, tokenizer and weights.

    The names of the tensors are made anew for every module as well. Together that is half of a conversion's time.
    """
    reader, names = gguf_format.GGUFReader, gguf_format.get_tensor_name_map
    gguf_format.GGUFReader = cache(reader)  # type: ignore[misc,assignment]
    gguf_format.get_tensor_name_map = cache(names)
    try:
        yield
    finally:
        gguf_format.GGUFReader, gguf_format.get_tensor_name_map = reader, names  # type: ignore[misc]


def passed_over(gguf: Path, model: PreTrainedModel) -> str | None:
    """Return what of a file the converted model lacks, in words; None where it has all."""
    reader = gguf_format.GGUFReader(str(gguf))
    scaling = next((field for name, field in reader.fields.items() if name.endswith("rope.scaling.type")), None)
    kind = "" if scaling is None else str(scaling.contents())
    rope = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    if kind not in _UNSCALED and rope.get("rope_type", "default") == "default":
        return f"the scaling of its rotary angles ({kind})"
    held = {tensor.name: int(tensor.n_elements) for tensor in reader.tensors}
    used = sum(parameter.numel() for parameter in model.parameters())
    if sum(held.values()) <= used:
        return None
    odd = [name for name in held if name.startswith("rope_") or name.endswith(".bias")] or list(held)
    return f"{sum(held.values()) - used:,} numbers of its tensors, among them perhaps {odd[0]}"
