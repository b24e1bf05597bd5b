import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from lorascope.data.dataset import Example
from lorascope.data.encode import encode
from lorascope.data.formats.rendering import RenderedRow
from lorascope.data.shown_rows import shown_rows
from lorascope.records import ShownRow
from support.chat_templates import byte_tokenizer


def test_shown_row_has_its_text_by_turns(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "add: sum</s> more: the sum</s>"
    row = RenderedRow(text=text, prompt="", spans=((4, 12), (18, 30)))
    (encoded,) = encode([row], tokenizer, is_chat=True, completion_only=True)
    example = encoded.truncate(100)
    assert shown_rows([example], tokenizer) == (
        ShownRow(
            row=1,
            pieces=("add:", " sum</s>", " more:", " the sum</s>"),
            tokens=example.n_tokens,
            targets=example.n_targets,
        ),
    )


@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), min_size=2, max_size=20),
    borders=st.sets(st.integers(1, 20), min_size=2, max_size=2),
)
def test_pieces_join_to_the_text(text: str, borders: set[int]) -> None:
    tokenizer = byte_tokenizer("")
    start, end = (min(border, len(text)) for border in sorted(borders))
    row = RenderedRow(text=text, prompt="", spans=((start, end),))
    (encoded,) = encode([row], tokenizer, is_chat=True, completion_only=True)
    example = Example(input_ids=encoded.input_ids, target_mask=encoded.target_mask)
    (shown,) = shown_rows([example], tokenizer)
    assert "".join(shown.pieces) == text
    assert "".join(shown.pieces[1::2]) == text[start:end]


def test_piece_that_parts_a_character_is_decoded_alone() -> None:
    tokenizer = byte_tokenizer("")
    ids = np.array(tokenizer("aéb")["input_ids"], dtype=np.int64)
    (row,) = shown_rows([Example(input_ids=ids, target_mask=np.array([False, False, True, True]))], tokenizer)
    assert row.pieces == ("a\ufffd", "\ufffdb")
