"""Rows that could not be used, where they are so many that the answer is about other data than was given."""

from collections.abc import Sequence

from lorascope.message import Message, Value

MANY = 0.05
"""Share of a split's rows from which on their loss is a warning."""
REASONS = {
    "rows.cut_before_target": "dropped.cut",
    "rows.dropped_blank": "dropped.blank",
    "rows.dropped_empty_answer": "dropped.empty_answer",
    "rows.dropped_no_answer": "dropped.no_answer",
    "rows.dropped_no_target": "dropped.no_target",
    "rows.dropped_switched_off": "dropped.switched_off",
    "rows.dropped_unwritten_call": "dropped.unwritten_call",
}
"""By the code of the note."""


def dropped_rows(notes: Sequence[Message]) -> tuple[Message, ...]:
    """Return a warning for each split that lost many rows.

    Args:
        notes: what was done to the rows.
    """
    found: dict[Value, list[Message]] = {}
    for note in notes:
        if note.code in REASONS:
            found.setdefault(note.values["split"], []).append(note)
    warnings = [_warning(split, of_split) for split, of_split in found.items()]
    return tuple(warning for warning in warnings if warning is not None)


def _warning(split: Value, notes: Sequence[Message]) -> Message | None:
    # later reasons count from the rows that earlier ones left
    rows, dropped = max(_number(note, "rows") for note in notes), sum(_number(note, "count") for note in notes)
    if dropped <= MANY * rows:
        return None
    return Message("dropped.rows", count=dropped, rows=rows, split=split, reasons=tuple(map(_reason, notes)))


def _reason(note: Message) -> Message:
    if note.code == "rows.cut_before_target":
        return Message("dropped.cut", tokens=note.values["tokens"])
    return Message(REASONS[note.code])


def _number(message: Message, name: str) -> int:
    value = message.values[name]
    assert isinstance(value, int)
    return value
