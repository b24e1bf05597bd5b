"""Columns: other names for them, and those that are not text."""

from collections.abc import Mapping, Sequence

from lorascope.data.formats.turns import refuse_media
from lorascope.errors import InputError

MEDIA_COLUMNS = ("image", "images", "video", "videos", "audio", "audios")
_OTHER_NAMES = {"conversation": "conversations"}


def names_of(given: Mapping[str, str], columns: Sequence[str]) -> dict[str, str]:
    """Return the column that each name of a format is read from, by the user's names and the usual other ones.

    Args:
        given: the rows' column of each name, as the user says.
        columns: columns of the rows.
    """
    for name, column in given.items():
        if column not in columns:
            raise InputError(
                f"columns reads {name!r} from {column!r}, which the rows do not have",
                remedy=f"the columns are: {', '.join(columns)}",
            )
    others = {name: column for column, name in _OTHER_NAMES.items() if column in columns and name not in columns}
    kept = {column: column for column in columns if column not in given.values()}
    return kept | others | dict(given)


def refuse_media_cells(row: Mapping[str, object], number: int) -> None:
    """Raise InputError where a column of images, video or audio is filled."""
    for column in MEDIA_COLUMNS:
        cell = row.get(column)
        if cell not in (None, [], ""):
            raise refuse_media(number, f"a filled column {column!r}")
