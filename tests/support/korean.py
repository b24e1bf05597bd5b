"""Faults of Korean text: English words, and particles without a chosen form."""

import re

NAMES = {
    "alpha", "r", "sqrt", "LoRA", "muA", "arXiv", "Without", "Regret", "nats", "p", "RMS", "OOM", "AdamW", "float32",
    "B", "kB", "MB", "GB", "torch", "MPS", "bfloat16", "max_length", "GPU", "Holm", "t",
}  # fmt: skip
"""Words that Korean writes in Latin letters."""


def foreign(text: str) -> set[str]:
    """English words in a text; names of trials and numbers with an exponent are none."""
    bare = re.sub(r"\br\d+(-lr[\d.]+(e-?\d+)?)?(-s\d+)?\b|\d(\.\d+)?e[-+]\d+", "", text)
    return set(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", bare)) - NAMES


def undecided(text: str) -> bool:
    """Say whether a particle still stands in both its forms."""
    return re.search(r"[은는이가을를과와]\([은는이가을를과와]\)|\(으\)로", text) is not None
