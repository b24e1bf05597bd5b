"""Columns: other names for them, and those that are not text."""

from collections.abc import Mapping, Sequence

from lorascope.data.formats.turns import refuse_media
from lorascope.errors import InputError

MEDIA_COLUMNS = ("image", "images", "video", "videos", "audio", "audios")
_OTHER_NAMES = (
    ("conversation", "conversations", "conversation"),
    ("response", "output", "instruction"),
    ("context", "input", "instruction"),
)
"""Columns of public data sets: a column, the name that formats know it by, and a column that must be there too."""


def names_of(given: Mapping[str, str], columns: Sequence[str], *, usual: bool) -> dict[str, str]:
    """Return the column that each name of a format is read from, by the user's names and the usual other ones.

    Args:
        given: the rows' column of each name, as the user says.
        columns: columns of the rows.
        usual: True to read a format's names from the usual other ones.
    """
    for name, column in given.items():
        if column not in columns:
            raise InputError(
                f"columns reads {name!r} from {column!r}, which the rows do not have",
                remedy=f"the columns are: {', '.join(columns)}",
            )
    others = {
        name: column
        for column, name, beside in _OTHER_NAMES
        if usual and {column, beside} <= set(columns) and name not in columns
    }
    kept = {column: column for column in columns if column not in {*given.values(), *others.values()}}
    return kept | others | dict(given)


def refuse_labels_and_trees(name: str, first: Mapping[str, object]) -> None:
    """Raise InputError for rows whose columns fit a format, and whose answers are not all meant to be learned."""
    if name == "prompt_completion" and str(first.get("label")).lower() in {"true", "false"}:
        raise InputError(
            "the column 'label' says which completions are good and which are bad, and all would be trained on",
            remedy="keep the rows with good completions, or name dataset_format prompt_completion to train on all",
        )
    if name == "text" and {"role", "parent_id"} <= first.keys():
        raise InputError(
            "the rows are single messages (role, parent_id, text), of which conversations are made",
            remedy="join each conversation to a list in a column 'messages', or name dataset_format text to train on "
            "single messages",
        )


def refuse_media_cells(row: Mapping[str, object], number: int) -> None:
    """Raise InputError where a column of images, video or audio is filled."""
    for column in MEDIA_COLUMNS:
        cell = row.get(column)
        if cell not in (None, [], ""):
            raise refuse_media(number, f"a filled column {column!r}")
