import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import ByT5Tokenizer, PreTrainedTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lorascope.data.encode import TokenizedRow, encode, mask_by_characters
from lorascope.data.formats.rendering import RenderedRow, join_pair


class BlankFirstTokenizer(PreTrainedTokenizer):
    """Tokenizes as SentencePiece: a blank before the text, blanks inside of pieces, the longest piece first."""

    def __init__(self) -> None:
        pieces = ["<s>", "</s>", "▁", "▁the", "▁sum", "the", "th", "su", "sum", "m▁o", ":", ": ", "▁and", "Qs", "(a"]
        letters = [letter for letter in "abcdefghijklmnopqrstuvwxyzQ0 ()+:.\n#" if letter not in pieces]
        self._ids = {piece: at for at, piece in enumerate(pieces + letters)}
        super().__init__(bos_token="<s>", eos_token="</s>", unk_token="</s>")

    @property
    def vocab_size(self) -> int:
        return len(self._ids)

    def get_vocab(self) -> dict[str, int]:
        return dict(self._ids)

    def _tokenize(self, text: str, **kwargs: object) -> list[str]:
        rest, found = "▁" + text.replace(" ", "▁"), []
        while rest:
            piece = next(rest[:size] for size in (4, 3, 2, 1) if rest[:size] in self._ids)
            found.append(piece)
            rest = rest[len(piece) :]
        return found

    def _convert_token_to_id(self, token: str) -> int:
        return self._ids[token]

    def _convert_id_to_token(self, index: int) -> str:
        return list(self._ids)[index]

    def build_inputs_with_special_tokens(self, ids: list[int], other: list[int] | None = None) -> list[int]:
        return [0, *ids]


ascii_text = st.text(alphabet="abde ()+:.\n#Qthsumof", min_size=1, max_size=40)


def encode_one(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    completion: str,
    *,
    is_chat: bool = False,
    completion_only: bool = True,
) -> TokenizedRow:
    row = join_pair(prompt, completion)
    assert isinstance(row, RenderedRow)
    (encoded,) = encode([row], tokenizer, is_chat=is_chat, completion_only=completion_only)
    return encoded


@given(prompt=ascii_text, completion=ascii_text.filter(str.strip))
def test_targets_are_the_tokens_that_hold_characters_of_the_completion(
    bos_tokenizer: PreTrainedTokenizerFast, prompt: str, completion: str
) -> None:
    encoded = encode_one(bos_tokenizer, prompt, completion)
    ids, mask = encoded.input_ids, encoded.target_mask
    assert ids.tolist() == [*bos_tokenizer(prompt + completion)["input_ids"], bos_tokenizer.eos_token_id]
    first = int(mask.argmax())
    assert not mask[:first].any()
    assert mask[first:].all()
    before = str(bos_tokenizer.decode(ids[1:first]))
    assert prompt.startswith(before)
    assert before + str(bos_tokenizer.decode(ids[first:])) == prompt + completion + "</s>"
    assert len(before) + len(bos_tokenizer.decode(ids[first : first + 1])) > len(prompt)


@given(prompt=ascii_text, completion=ascii_text.filter(str.strip))
def test_trimmed_offsets_give_the_same_mask(
    tokenizer: PreTrainedTokenizerFast, bos_tokenizer: PreTrainedTokenizerFast, prompt: str, completion: str
) -> None:
    trimmed = encode_one(tokenizer, "Q" + prompt, completion)
    whole = encode_one(bos_tokenizer, "Q" + prompt, completion)
    assert trimmed.input_ids.tolist() == whole.input_ids.tolist()[1:]
    assert trimmed.target_mask[1:].tolist() == whole.target_mask[2:].tolist()


def test_token_across_the_border_belongs_to_the_completion() -> None:
    offsets = np.array([[0, 0], [0, 3], [3, 6], [6, 9], [9, 9], [9, 12]])
    assert mask_by_characters(offsets, [(4, 9)]).tolist() == [False, False, True, True, True, False]
    assert mask_by_characters(offsets, [(0, 3), (9, 12)]).tolist() == [False, True, False, False, False, True]


def test_characters_of_several_bytes_are_masked_as_characters(bos_tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = encode_one(bos_tokenizer, "Qé", "한국")
    first = int(encoded.target_mask.argmax())
    assert bos_tokenizer.decode(encoded.input_ids[1:first]) == "Qé"
    assert bos_tokenizer.decode(encoded.input_ids[first:]) == "한국</s>"


def test_the_end_token_is_not_doubled(tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = encode_one(tokenizer, "Q: ", "the sum</s>")
    assert encoded.input_ids.tolist().count(tokenizer.eos_token_id) == 1
    assert encoded.target_mask[-1]


def test_a_chat_gets_no_special_tokens(bos_tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = encode_one(bos_tokenizer, "Q: ", "the sum\n", is_chat=True)
    assert encoded.input_ids.tolist() == bos_tokenizer("Q: the sum\n", add_special_tokens=False)["input_ids"]


def test_loss_on_all_tokens_leaves_out_only_the_first(tokenizer: PreTrainedTokenizerFast) -> None:
    mask = encode_one(tokenizer, "Q: ", "the sum", completion_only=False).target_mask
    assert not mask[0]
    assert mask[1:].all()


def test_a_tokenizer_of_bytes_without_offsets_has_the_same_mask() -> None:
    tokenizer = ByT5Tokenizer()
    encoded = encode_one(tokenizer, "Q: ", "sum")
    assert encoded.input_ids.tolist() == tokenizer("Q: sum")["input_ids"]
    assert encoded.target_mask.tolist() == [False] * 3 + [True] * 4


@given(prompt=ascii_text, completion=ascii_text.filter(str.strip), more=ascii_text)
def test_a_tokenizer_without_offsets_tokenises_the_whole_text(prompt: str, completion: str, more: str) -> None:
    tokenizer = BlankFirstTokenizer()
    text = prompt + completion + more
    row = RenderedRow(text=text, prompt=prompt, spans=((len(prompt), len(prompt + completion)),))
    (encoded,) = encode([row], tokenizer, is_chat=False, completion_only=True)
    assert encoded.input_ids.tolist() == [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    pieces = tokenizer.convert_ids_to_tokens(encoded.input_ids.tolist())
    ends = np.cumsum([len(piece) for piece in pieces[1:-1]]) - 1  # the start token and the blank in front are no text
    starts = np.concatenate([[0], ends[:-1]])
    inside = (ends > len(prompt)) & (starts < len(prompt + completion))
    assert encoded.target_mask.tolist() == [False, *inside.tolist(), True]


def test_a_blank_is_put_before_a_text_and_not_before_its_completion() -> None:
    encoded = encode_one(BlankFirstTokenizer(), "add 0 and 0", ": the sum")
    pieces = BlankFirstTokenizer().convert_ids_to_tokens(encoded.input_ids[encoded.target_mask].tolist())
    assert pieces == [":", "▁the", "▁sum", "</s>"]


@pytest.mark.parametrize("text", ["<s>the sum", "<s>the sum</s>", "<s>the sum</s>\n"])
def test_text_that_holds_start_and_end_gets_no_second_ones(bos_tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    row = RenderedRow(text=text, prompt=text, spans=((0, len(text)),))
    (encoded,) = encode([row], bos_tokenizer, is_chat=False, completion_only=True)
    ids = encoded.input_ids.tolist()
    assert (ids.count(bos_tokenizer.bos_token_id), ids.count(bos_tokenizer.eos_token_id)) == (1, 1)
    assert ids[0] == bos_tokenizer.bos_token_id
    assert encoded.target_mask.tolist() == [False] + [True] * (len(ids) - 1)


def test_start_of_a_prompt_is_not_doubled_and_no_target(bos_tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = encode_one(bos_tokenizer, "<s>Q", "the sum</s>\n")
    plain = encode_one(bos_tokenizer, "Q", "the sum</s>\n")
    assert encoded.input_ids.tolist() == plain.input_ids.tolist()
    assert encoded.target_mask.tolist() == plain.target_mask.tolist()


@pytest.mark.parametrize("max_length", [2, 3, 4, 100])
def test_a_truncated_row_keeps_its_start_and_loses_its_end_token(
    tokenizer: PreTrainedTokenizerFast, max_length: int
) -> None:
    encoded = encode_one(tokenizer, "Q", "the sum of", completion_only=True)
    example = encoded.truncate(max_length)
    assert example is not None
    assert example.input_ids.tolist() == encoded.input_ids.tolist()[:max_length]
    assert (example.input_ids[-1] == tokenizer.eos_token_id) == (max_length >= len(encoded.input_ids))
    assert example.n_targets == example.n_tokens - 1


def test_row_without_targets_after_truncation_is_dropped(tokenizer: PreTrainedTokenizerFast) -> None:
    assert encode_one(tokenizer, "a long prompt that fills the row", "sum").truncate(3) is None
