"""Conversations: rows of messages to text through the tokenizer's chat template, with the spans of their answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lorascope.data.formats.answers import Answer, find_answer, writes_calls
from lorascope.data.formats.rendering import Drop, Remark, RenderedRow, cell_text
from lorascope.data.formats.template import ChatTemplate, Message, Options
from lorascope.data.formats.turns import SWITCHES, Turn, parse_json, read_switch, read_turns
from lorascope.errors import InputError

OPTION_COLUMNS = ("system", "tools", "documents", "chat_template_kwargs", *SWITCHES)
"""Columns that are read beside the messages."""
_RESERVED = frozenset(
    {
        "conversation", "tools", "documents", "chat_template", "add_generation_prompt", "continue_final_message",
        "tokenize", "padding", "truncation", "max_length", "return_tensors", "return_dict",
        "return_assistant_tokens_mask", "tokenizer_kwargs",
    }
)  # fmt: skip
"""Arguments of ``apply_chat_template`` that are no variables of a template."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversations:
    """Renders rows of messages."""

    template: ChatTemplate
    columns: tuple[str, ...]
    """Columns of messages, which make one conversation; only answers of the last are trained."""
    options: tuple[str, ...]
    """Those of OPTION_COLUMNS that the rows have."""
    completion_only: bool
    """False skips the spans: every token is a target."""

    def render(self, row: Mapping[str, object], number: int) -> RenderedRow | Drop:
        """Render one row, given its number from 1, or say why it is dropped."""
        lists = [read_turns(row[column], self.template, number) for column in self.columns]
        turns = _with_system(_with_switches([turn for part in lists for turn in part], row, number), row, number)
        first = len(turns) - len(lists[-1])
        answers = [turn for turn in range(first, len(turns)) if turns[turn].is_answer]
        trained = [turn for turn in answers if turns[turn].switch is not False and turns[turn].says_something]
        if not turns or (not self.completion_only and not any(turn.says_something for turn in turns)):
            return Drop.BLANK
        if self.completion_only and not trained:
            return _why_untrained(turns, answers)
        if not self.completion_only and any(turn.switch is False for turn in turns):
            raise InputError(
                f"row {number} has a turn that is not to be trained, but completion_only_loss is false",
                remedy="leave completion_only_loss out, or remove the switches of the turns",
            )
        rendered = self._render(turns, trained, self._options(row, number), number)
        if isinstance(rendered, Drop):
            return rendered
        if self.completion_only and not rendered.spans:
            return Drop.EMPTY_ANSWER
        return replace(rendered, prompt=_prompt(turns, first) or rendered.text)

    def _render(
        self, turns: Sequence[Turn], trained: Sequence[int], options: Options, number: int
    ) -> RenderedRow | Drop:
        """Render the turns as one text, with the spans of the trained ones, which may turn out blank."""
        messages = [turn.message for turn in turns]

        def write(some: Sequence[Message], *, for_answer: bool = False) -> str:
            return self.template.render(some, options, number, for_answer=for_answer)

        text = write(messages)
        if not writes_calls(messages, trained, write):
            return Drop.UNWRITTEN_CALL
        rendered = RenderedRow(text=text, prompt=text, spans=())
        if not self.completion_only:
            return rendered
        found = [find_answer(messages, turn, text, write, number) for turn in trained]
        marks = self.template.marks(messages, options) if self.template.has_marks else None
        return replace(rendered, spans=tuple(_spans(found, marks)), remarks=frozenset(_remarks(turns, found)))

    def _options(self, row: Mapping[str, object], number: int) -> dict[str, Any]:
        given = self._cell(row, "chat_template_kwargs", dict, number) or {}
        variables = {name: value for name, value in given.items() if value is not None}
        reserved = sorted(_RESERVED & variables.keys())
        if reserved:
            raise InputError(
                f"row {number} has {reserved[0]!r} in chat_template_kwargs",
                remedy="give variables of the chat template there; tools and documents have columns of their own",
            )
        lists = {name: self._cell(row, name, list, number) for name in ("tools", "documents")}
        return variables | {name: value for name, value in lists.items() if value}

    def _cell(self, row: Mapping[str, object], column: str, kind: type, number: int) -> Any:  # noqa: ANN401 - of the asked kind
        cell = row.get(column) if column in self.options else None
        if isinstance(cell, str):
            cell = parse_json(cell, f"row {number}", column) if cell.strip() else None
        if cell is not None and not isinstance(cell, kind):
            raise InputError(
                f"row {number}, column {column!r} holds a {type(cell).__name__}",
                remedy=f"give {column} as a {'list' if kind is list else 'mapping'}, or as JSON text of one",
            )
        return cell


def _with_system(turns: list[Turn], row: Mapping[str, object], number: int) -> list[Turn]:
    """Put the prompt of the column ``system`` in front."""
    text = cell_text(row, "system", number) if "system" in row else ""
    if not text.strip() or not turns:
        return turns
    first = turns[0].message
    if first["role"] != "system":
        content = [{"type": "text", "text": text}] if isinstance(first["content"], list) else text
        return [Turn(message={"role": "system", "content": content}, switch=None), *turns]
    if turns[0].text != text:
        raise InputError(
            f"row {number} has a system prompt in the column 'system' and another one among its messages",
            remedy="give one of them",
        )
    return turns


def _with_switches(turns: list[Turn], row: Mapping[str, object], number: int) -> list[Turn]:
    """Apply columns such as ``weight``: one value for the row, or one for each turn or each answer."""
    for name in SWITCHES:
        cell = row.get(name)
        if cell is None:
            continue
        answers = [at for at, turn in enumerate(turns) if turn.is_answer]
        values = cell if isinstance(cell, list | tuple) else [cell] * len(answers)
        places = answers if len(values) == len(answers) else range(len(turns))
        if len(values) != len(places):
            raise InputError(
                f"row {number}, column {name!r} has {len(values)} values for {len(turns)} turns",
                remedy="give one for each turn, one for each turn of the assistant, or one for the row",
            )
        for at, value in zip(places, values, strict=True):
            on = value is None or read_switch(value, name, number)
            turns[at] = replace(turns[at], switch=on and turns[at].switch is not False)
    return turns


def _why_untrained(turns: Sequence[Turn], answers: Sequence[int]) -> Drop:
    if not answers:
        return Drop.NO_ANSWER
    speaking = any(turns[turn].says_something for turn in answers)
    return Drop.SWITCHED_OFF if speaking else Drop.EMPTY_ANSWER


def _prompt(turns: Sequence[Turn], first: int) -> str:
    """Return the text before the first answer to a user, from turn ``first`` on; empty without one."""
    asked = False
    for at, turn in enumerate(turns):
        if asked and turn.is_answer and at >= first:
            return "\n".join(f"{said.message['role']}: {said.text.strip()}" for said in turns[:at])
        asked |= turn.message["role"] == "user"
    return ""


def _spans(answers: Sequence[Answer], marks: Sequence[tuple[int, int]] | None) -> list[tuple[int, int]]:
    """Return the ranges of answers within a template's own marks, but with their ends; marks may hold the header."""
    spans = []
    for answer in answers:
        start = answer.start
        if answer.blank:
            continue
        if marks is not None:
            over = [first for first, end in marks if first < answer.end and end > answer.start]
            if not over:
                continue
            start = max(start, min(over))
        spans.append((start, answer.end))
    return spans


def _remarks(turns: Sequence[Turn], answers: Sequence[Answer]) -> list[Remark]:
    remarks = []
    if not all(answer.whole for answer in answers):
        remarks.append(Remark.ANSWER_SHORTENED)
    if any(turn.switch and not turn.is_answer and turn.message["role"] == "user" for turn in turns):
        remarks.append(Remark.USER_SWITCHED_ON)
    return remarks
