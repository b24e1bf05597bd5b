"""Position schemes that depend on the longest position of a call, whose rows must not meet shorter ones."""

from collections.abc import Iterator, Mapping
from typing import Any

from transformers import PretrainedConfig


def position_switch(config: PretrainedConfig) -> int | None:
    """Return the length above which rows get other rotary angles (LongRoPE); None if all rows get the same."""
    written = config.to_dict()
    lengths = [
        part.get("original_max_position_embeddings") or written.get("original_max_position_embeddings")
        for part in _parts(written)
        if part.get("rope_type", part.get("type")) in {"longrope", "su"}
    ]
    return min((length for length in lengths if isinstance(length, int)), default=None)


def _parts(value: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
        for part in value.values():
            yield from _parts(part)
