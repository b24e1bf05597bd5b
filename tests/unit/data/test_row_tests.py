"""Tests of held-out rows, found by their tokens."""

import pytest
from transformers import PreTrainedTokenizerFast

from lorascope.data.prepare import prepare
from lorascope.data.row_tests import row_tests
from lorascope.errors import InputError
from lorascope.spec.schema import StudySpec
from support.tiny_models import WriteRows


def spec_of(dataset: str) -> StudySpec:
    return StudySpec(dataset=dataset, eval_examples=8, per_device_train_batch_size=4, max_length=64)


def test_held_out_rows_keep_their_own_tests(tokenizer: PreTrainedTokenizerFast, write_rows: WriteRows) -> None:
    rows = [
        {"prompt": f"ask {n}", "completion": f"say {n}", "tests": "", "test_list": [f"assert x == {n}", "pass"]}
        if n % 3 == 0
        else {"prompt": f"ask {n}", "completion": f"say {n}", "tests": f"assert x == {n}" if n % 3 == 1 else None}
        for n in range(60)
    ]
    spec = spec_of(write_rows([{"prompt": "", "completion": "", "tests": "not used"}, *rows]))
    held_out = prepare(spec, tokenizer).eval
    found = row_tests(spec, tokenizer, held_out)
    numbers = {
        place: int(str(tokenizer.decode(row.input_ids[row.target_mask])).split()[1].split("<")[0])
        for place, row in enumerate(held_out, 1)
    }
    expected = {
        place: f"assert x == {n}" + ("\npass" if n % 3 == 0 else "") for place, n in numbers.items() if n % 3 != 2
    }
    assert found == expected
    assert 0 < len(found) < len(held_out)


def test_a_check_that_nothing_calls_is_called(tokenizer: PreTrainedTokenizerFast, write_rows: WriteRows) -> None:
    check = "def check(candidate):\n    assert candidate(1) == 2\n"
    called = check + "check(other)\n"
    rows = [
        {"prompt": f"ask {n}", "completion": f"say {n}", "test": called if n % 2 else check, "entry_point": "twice"}
        for n in range(40)
    ]
    spec = spec_of(write_rows(rows))
    found = row_tests(spec, tokenizer, prepare(spec, tokenizer).eval)
    assert set(found.values()) == {called, check + "\ncheck(twice)\n"}


def test_rows_without_tests_are_refused(tokenizer: PreTrainedTokenizerFast, write_rows: WriteRows) -> None:
    rows = [{"prompt": f"ask {n}", "completion": f"say {n}"} for n in range(40)]
    spec = spec_of(write_rows(rows))
    held_out = prepare(spec, tokenizer).eval
    with pytest.raises(InputError, match="needs a column with tests, and the rows have prompt, completion"):
        row_tests(spec, tokenizer, held_out)
    spec = spec_of(write_rows([{**row, "tests": ""} for row in rows]))
    with pytest.raises(InputError, match="none of the 8 held-out rows has tests"):
        row_tests(spec, tokenizer, held_out)
