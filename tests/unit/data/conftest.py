"""Small tokenizers and files of rows."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from support.tiny_models import WriteRows, train_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """No special token in front; offsets with white space trimmed off, as GPT-2's have."""
    return train_tokenizer(bos=False)


@pytest.fixture(scope="session")
def bos_tokenizer() -> PreTrainedTokenizerFast:
    """A begin token in front; offsets that hold every character."""
    return train_tokenizer(bos=True)


@pytest.fixture
def write_rows(tmp_path: Path) -> WriteRows:
    def write(rows: Sequence[Mapping[str, object]]) -> str:
        path = tmp_path / "rows.json"
        path.write_text(json.dumps(rows), encoding="utf-8")
        return str(path)

    return write
