from transformers import PreTrainedTokenizerFast

from lorascope.data.dataset import Example
from lorascope.data.encode import encode
from lorascope.data.formats.rendering import RenderedRow
from lorascope.data.target_bytes import target_bytes
from support.chat_templates import byte_tokenizer


def example(tokenizer: PreTrainedTokenizerFast, text: str, *spans: tuple[int, int]) -> Example:
    (found,) = encode([RenderedRow(text=text, prompt="", spans=spans)], tokenizer, is_chat=True, completion_only=True)
    return Example(input_ids=found.input_ids, target_mask=found.target_mask)


def test_bytes_are_those_of_the_targets_without_special_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    row = example(tokenizer, "add: sum</s> more: the sum</s>", (4, 12), (18, 30))
    assert target_bytes([row], tokenizer) == len(" sum") + len(" the sum")
    assert target_bytes([row, row], tokenizer) == 2 * target_bytes([row], tokenizer)
    assert target_bytes([], tokenizer) == 0


def test_a_tokenizer_of_bytes_counts_the_same_text_alike(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "ask: größer als π"
    span = (4, len(text))
    counts = {target_bytes([example(one, text, span)], one) for one in (tokenizer, byte_tokenizer(""))}
    assert counts == {len(text[4:].encode())}
