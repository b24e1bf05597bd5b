"""End tokens: where the model's own settings end an answer."""

from contextlib import suppress

from transformers import AutoConfig, GenerationConfig

from lorascope.modeling.load import ModelSource, quiet


def end_token_ids(source: ModelSource) -> frozenset[int]:
    """Return the ids at which generation stops, by the model's generation settings and configuration."""
    found: set[int] = set()
    with quiet():
        for read in (
            lambda: GenerationConfig.from_pretrained(source.path),
            lambda: AutoConfig.from_pretrained(source.path, trust_remote_code=source.trust_remote_code),
        ):
            with suppress(OSError, ValueError):  # no such file, or settings that cannot be used
                ids = getattr(read(), "eos_token_id", None)
                found.update(ids if isinstance(ids, list | tuple) else [] if ids is None else [ids])
    return frozenset(found)
