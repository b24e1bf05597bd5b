"""Tests of held-out rows: Python code in a column beside prompt and completion, found again by the row's tokens."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from lorascope.data.dataset import Example, complement_targets
from lorascope.data.encoded import Encoder
from lorascope.data.prepare import make_encoder
from lorascope.data.sources.mixture import load_data_sets
from lorascope.data.sources.rows import Row, Rows
from lorascope.errors import InputError
from lorascope.spec.schema import StudySpec

COLUMNS = ("tests", "test_list", "test")
"""Columns that may hold tests, as text or as a list of statements; the first that a row fills counts."""


def row_tests(
    spec: StudySpec, tokenizer: PreTrainedTokenizerBase, held_out: Sequence[Example], *, end_ids: Collection[int] = ()
) -> dict[int, str]:
    """Return the tests of held-out rows by their numbers, from 1; rows without tests are left out.

    Args:
        spec: the study.
        tokenizer: of its model.
        held_out: its held-out rows.
        end_ids: tokens that stop the model beside the tokenizer's end token.

    Raises:
        InputError: the rows have no column with tests, or no held-out row has any.
    """
    split = spec.eval_split or spec.split
    data_sets = load_data_sets(spec, split, mixed=spec.eval_split is None)
    if not any(column in rows.columns for rows in data_sets for column in COLUMNS):
        raise InputError(
            f"metric python_tests needs a column with tests, and the rows have {', '.join(data_sets[0].columns)}",
            remedy=f"give the rows a column {COLUMNS[0]!r} with Python code that raises where an answer is wrong",
        )
    wanted = {_key(example): number for number, example in enumerate(held_out, 1)}
    pairs = (pair for rows in data_sets for pair in _tests_by_key(spec, tokenizer, rows, frozenset(end_ids)))
    found = {wanted[key]: tests for key, tests in pairs if key in wanted}
    if not found:
        raise InputError(
            f"metric python_tests: none of the {len(held_out)} held-out rows has tests",
            remedy=f"fill the column {COLUMNS[0]!r}",
        )
    return found


def _tests_by_key(
    spec: StudySpec, tokenizer: PreTrainedTokenizerBase, rows: Rows, end_ids: frozenset[int]
) -> Iterator[tuple[bytes, str]]:
    encoder = make_encoder(spec, tokenizer, rows, end_ids)
    for number, row in enumerate(rows, 1):
        tests = _tests_of(row)
        if tests is not None and (key := _encoded_key(encoder, row, number)):
            yield key, tests


def _encoded_key(encoder: Encoder, row: Row, number: int) -> bytes:
    return encoder.encode([row], number).tokens.tobytes()


def _key(example: Example) -> bytes:
    return complement_targets(example.input_ids, example.target_mask).tobytes()


def _tests_of(row: Mapping[str, object]) -> str | None:
    for column in COLUMNS:
        value = row.get(column)
        if isinstance(value, list) and value:
            return "\n".join(map(str, value))
        if isinstance(value, str) and value.strip():
            return value + _call_of_check(value, row.get("entry_point"))
    return None


def _call_of_check(tests: str, entry_point: object) -> str:
    """Return the call that tests lack which only define ``check``, as HumanEval's do."""
    if (
        not isinstance(entry_point, str)
        or not entry_point.isidentifier()
        or not re.search(r"^def check\(", tests, re.MULTILINE)
    ):
        return ""
    return "" if re.search(r"^check\(", tests, re.MULTILINE) else f"\ncheck({entry_point})\n"
