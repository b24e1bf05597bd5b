"""Chat rendering: messages to text through the tokenizer's chat template, with the spans of assistant turns."""

from collections.abc import Mapping, Sequence

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from lorascope.data.formats.rendering import Drop, RenderedRow
from lorascope.errors import InputError

Message = Mapping[str, object]


def render_chat(
    cells: Sequence[object], tokenizer: PreTrainedTokenizerBase, *, number: int, with_spans: bool
) -> RenderedRow | Drop:
    """Render one row's message lists as one conversation.

    The assistant's turns in the last list are the completion, each from the end of the generation prompt to the end of
    the turn. ``with_spans=False`` skips their spans, which templates that rewrite earlier turns do not allow.
    """
    lists = [_messages(cell, number) for cell in cells]
    messages = [message for part in lists for message in part]
    first = len(messages) - len(lists[-1])
    turns = [turn for turn in range(first, len(messages)) if messages[turn]["role"] == "assistant"]
    if not messages:
        return Drop.BLANK
    if with_spans and not turns:
        return Drop.NO_ANSWER
    turns = [turn for turn in turns if _says_something(messages[turn])]
    if with_spans and not turns:
        return Drop.EMPTY_ANSWER
    text = _apply(messages, tokenizer, number)
    before = messages[: turns[0]] if turns else messages
    prompt = "\n".join(f"{message['role']}: {str(message['content']).strip()}" for message in before)
    spans = tuple(_span(messages, turn, text, tokenizer, number) for turn in turns) if with_spans else ()
    return RenderedRow(text=text, prompt=prompt or text, spans=spans)


def _says_something(message: Message) -> bool:
    return bool(str(message["content"]).strip() or message.get("tool_calls"))


def _messages(cell: object, number: int) -> list[Message]:
    if cell is None:
        return []
    messages: list[Message] = []
    for message in cell if isinstance(cell, list) else [cell]:
        if not (isinstance(message, dict) and isinstance(message.get("role"), str)):
            raise InputError(
                f"row {number} holds {message!r:.60} where a message is needed",
                remedy='give a list of messages such as {"role": "user", "content": "..."} in every row',
            )
        content = message.get("content")
        if content is not None and not isinstance(content, str):
            raise InputError(
                f"row {number} has a message whose content is a {type(content).__name__}",
                remedy="give every message its content as text",
            )
        # keys that only other messages have arrive as None; a template must not see them
        present = {key: value for key, value in message.items() if value is not None}
        messages.append({**present, "content": content or ""})
    return messages


def _apply(
    messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, number: int, *, for_answer: bool = False
) -> str:
    if tokenizer.chat_template is None:
        raise InputError(
            "the rows are messages, but the model's tokenizer has no chat template",
            remedy="choose an instruction-tuned model, or give prompt and completion as text",
        )
    try:
        text = tokenizer.apply_chat_template(
            list(messages),  # type: ignore[arg-type]  # messages with tool calls hold more than text
            tokenize=False,
            add_generation_prompt=for_answer,
        )
    except TemplateError as error:
        raise InputError(
            f"the model's chat template refuses the messages of row {number}: {error}",
            remedy="give messages in the order and with the roles that the model's template knows",
        ) from error
    return str(text)


def _span(
    messages: Sequence[Message], turn: int, text: str, tokenizer: PreTrainedTokenizerBase, number: int
) -> tuple[int, int]:
    before = [""]
    if turn > 0:
        # some templates ignore add_generation_prompt, others add one that a full conversation does not have
        before = [_apply(messages[:turn], tokenizer, number, for_answer=prompt) for prompt in (True, False)]
    through = text if turn == len(messages) - 1 else _apply(messages[: turn + 1], tokenizer, number)
    starts = [len(prefix) for prefix in before if through.startswith(prefix)]
    if not starts or not text.startswith(through):
        raise InputError(
            f"the model's chat template rewrites earlier messages of row {number}, so the assistant's turns "
            "cannot be located",
            remedy="give conversations of one answer each, or set completion_only_loss to false",
        )
    return starts[0], len(through)
