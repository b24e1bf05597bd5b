"""Forgetting text: windows of unrelated text, on which a higher loss after training shows forgetting."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from lorascope.data.dataset import Example
from lorascope.data.encode import starts_with_bos
from lorascope.errors import InputError
from lorascope.spec.fields.answer import BUILTIN_TEXT, NO_TEXT
from lorascope.spec.schema import StudySpec

WINDOWS = 32
"""Most windows read; they cost as much as 64 short rows."""
FEWEST_WINDOWS = 8
"""Fewer windows give no useful interval."""
WINDOW_TOKENS = 256
_MOST_CHARACTERS = 1_000_000
_SHORTEST_PARAGRAPH = 200


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ForgettingText:
    """Windows of one text."""

    windows: tuple[Example, ...]
    sha256: str
    """Of the windows' token ids, in hex."""


def read_forgetting_text(spec: StudySpec, tokenizer: PreTrainedTokenizerBase) -> ForgettingText | None:
    """Read windows spread evenly over the study's forgetting text; None if the study has none.

    A window has at most 256 tokens or ``max_length``, and begins with the tokenizer's start token if it has one. Every
    token but the first is a target.

    Raises:
        InputError: the file cannot be read, is not UTF-8 or is too short.
    """
    if spec.forgetting_text == NO_TEXT:
        return None
    text = (_python_reference() if spec.forgetting_text == BUILTIN_TEXT else _read(spec.forgetting_text)).strip()
    start = [tokenizer.bos_token_id] if text and starts_with_bos(text[:1000], tokenizer) else []
    ids: list[int] = tokenizer(text[:_MOST_CHARACTERS], add_special_tokens=False, verbose=False)["input_ids"]
    length = max(1, min(WINDOW_TOKENS, spec.max_length) - len(start))
    n_windows = len(ids) // length
    if n_windows < FEWEST_WINDOWS:
        raise InputError(
            f"forgetting_text {spec.forgetting_text!r} has {len(ids)} tokens, fewer than {FEWEST_WINDOWS} windows of "
            f"{length}",
            remedy=f"give a longer text, or {NO_TEXT!r} to leave it out",
        )
    chosen = sorted({round(place) for place in np.linspace(0, n_windows - 1, WINDOWS)})
    windows = tuple(_window([*start, *ids[at * length : (at + 1) * length]]) for at in chosen)
    digest = hashlib.sha256(b"".join(window.input_ids.astype("<i8").tobytes() for window in windows))
    return ForgettingText(windows=windows, sha256=digest.hexdigest())


def _window(ids: list[int]) -> Example:
    mask = np.ones(len(ids), dtype=bool)
    mask[0] = False
    return Example(input_ids=np.asarray(ids, dtype=np.int64), target_mask=mask)


def _read(name: str) -> str:
    path = Path(name).expanduser()
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"forgetting_text {name!r} is not UTF-8 (byte {error.start})", remedy="save the file as UTF-8"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"forgetting_text {name!r} cannot be read: {error}",
            remedy=f"give a text file, {BUILTIN_TEXT!r}, or {NO_TEXT!r} to leave it out",
        ) from None


def _python_reference() -> str:
    """Join the prose of Python's language reference, which ``help()`` ships under Python's licence.

    Prose means longer paragraphs without indentation and grammar; those of several topics count once.
    """
    try:
        from pydoc_data.topics import topics  # noqa: PLC0415 - some small builds of Python leave it out
    except ImportError:
        raise InputError(
            f"this Python comes without the text {BUILTIN_TEXT!r}",
            remedy=f"give forgetting_text a text file, or {NO_TEXT!r} to leave it out",
        ) from None
    paragraphs = [paragraph for _, topic in sorted(topics.items()) for paragraph in topic.split("\n\n")]
    return "\n\n".join(dict.fromkeys(" ".join(paragraph.split()) for paragraph in paragraphs if _is_prose(paragraph)))


def _is_prose(paragraph: str) -> bool:
    lines = paragraph.strip("\n").split("\n")
    return (
        len(paragraph) >= _SHORTEST_PARAGRAPH
        and "::=" not in paragraph
        and all(line[:1].strip() and not line.startswith(("* ", "+-", "| ", "==", "**")) for line in lines)
    )
