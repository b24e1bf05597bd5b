"""A training row that is kept to be shown; ``records`` has it with the other records."""

from lorascope.record_registry import record


@record("shown_rows", key=("row",))
class ShownRow:
    """One of the first training rows."""

    row: int
    """Counted from 1."""
    pieces: tuple[str, ...]
    """Its text: what is no target and targets, by turns."""
    tokens: int
    targets: int
