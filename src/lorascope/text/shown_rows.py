"""Rows with their targets marked, as terminal, report and Markdown write them."""

import re
from collections.abc import Iterator

from lorascope.records import ShownRow
from lorascope.text.language import tr

LONGEST_PIECE = 2000
"""Characters of a piece that are shown; of a longer one the middle is left out."""
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def marked_pieces(row: ShownRow) -> Iterator[tuple[str, bool]]:
    """Yield the pieces of a row, long ones shortened and control characters spelled out, and True for targets."""
    for at, piece in enumerate(row.pieces):
        yield shown_text(piece), at % 2 == 1


def shown_text(text: str) -> str:
    """Return a text of rows or models as it is shown: shortened if long, control characters spelled out."""
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", _shortened(text))


def in_brackets(row: ShownRow) -> str:
    """Write a row as text with its targets in [[ ]]."""
    return "".join(f"[[{piece}]]" if is_target else piece for piece, is_target in marked_pieces(row))


def heading(row: ShownRow) -> str:
    """Name a row and its size."""
    return tr(
        "Row {number}: {tokens} tokens, {targets} targets", number=row.row, tokens=row.tokens, targets=row.targets
    )


def _shortened(piece: str) -> str:
    if len(piece) <= LONGEST_PIECE:
        return piece
    half = LONGEST_PIECE // 2
    left_out = tr("[... {count} characters ...]", count=f"{len(piece) - 2 * half:,}")
    return f"{piece[:half]}{left_out}{piece[-half:]}"
