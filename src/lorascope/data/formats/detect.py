"""Row formats: detection by column names, and rendering of rows to text."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedTokenizerBase

from lorascope.data.formats.chat import OPTION_COLUMNS, Conversations
from lorascope.data.formats.columns import MEDIA_COLUMNS, names_of, refuse_labels_and_trees, refuse_media_cells
from lorascope.data.formats.rendering import Drop, RenderedRow, cell_text, compile_template, join_pair
from lorascope.data.formats.template import ChatTemplate, prints_date
from lorascope.errors import InputError
from lorascope.message import Message
from lorascope.spec.schema import StudySpec

FormatName = Literal["alpaca", "prompt_completion", "messages", "sharegpt", "text", "template"]
REQUIRED: dict[FormatName, tuple[str, ...]] = {
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "prompt_completion": ("prompt", "completion"),
    "alpaca": ("instruction", "output"),
    "text": ("text",),
}
"""Required columns of each format, in the order of detection."""
CHATS = frozenset({"messages", "sharegpt"})
ANSWER_COLUMNS = ("output", "completion", "response", "answer")

# the exact prompts of the Stanford Alpaca project
ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
ALPACA_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:"
)

_QUESTIONS = ("prompt", "instruction", "question", "query", "problem", "input")
_ANSWERS = ("completion", "output", "response", "answer", "answers", "solution", "target")
"""Usual columns of pairs, by which the error about unknown columns proposes --columns."""

Render = Callable[[Mapping[str, object], int], RenderedRow | Drop]


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """A row format."""

    name: FormatName
    columns: tuple[str, ...]
    """Columns of the rows that are read, by the names that they have there."""
    notes: tuple[Message, ...]
    """Notes about all rows: columns that are not read, the date in each row."""
    render: Render
    """Render a row, given its number from 1, or say why it is dropped."""
    is_chat: bool
    """True if a chat template renders rows, which adds special tokens and an end token itself."""
    completion_only: bool
    """True if the loss is taken on the completion only."""
    end_ids: frozenset[int]
    """Tokens that end an answer; a chat template may write none of them."""


def choose_format(
    spec: StudySpec,
    *,
    columns: Sequence[str],
    first_row: Mapping[str, object],
    tokenizer: PreTrainedTokenizerBase,
    end_ids: Collection[int] = (),
) -> Format:
    """Return the format that the spec names or the columns imply; ``end_ids`` stop the model beside the end token."""
    places = names_of(spec.columns or {}, columns, usual=spec.prompt_template is None)
    known = tuple(places)
    first = {known: first_row.get(column) for known, column in places.items()}
    name = _format_name(spec, first)
    if name == "text" and spec.completion_only_loss:
        raise InputError(
            "completion_only_loss is on, but rows of the format 'text' have no completion",
            remedy="leave completion_only_loss out, or give prompt and completion in columns of their own",
        )
    completion_only = name != "text" and spec.completion_only_loss is not False
    is_chat = name in CHATS or (name == "prompt_completion" and any(_is_turns(first[part]) for part in REQUIRED[name]))
    if is_chat:
        template = ChatTemplate(tokenizer, spec.template_date)
        read, inner = _conversations(name, known, template, completion_only=completion_only)
    else:
        read, inner = _renderer(name, spec, known)

    def render(row: Mapping[str, object], number: int) -> RenderedRow | Drop:
        named = {known: row[column] for known, column in places.items() if column in row}
        refuse_media_cells(named, number)
        return inner(named, number)

    media = tuple(column for column in MEDIA_COLUMNS if column in known)
    read_columns = tuple(dict.fromkeys(places[column] for column in (*read, *media)))
    unread = tuple(column for column in columns if column not in read_columns)
    dated = is_chat and prints_date(tokenizer)
    return Format(
        name=name,
        columns=read_columns,
        notes=(
            *([Message("rows.unread_columns", columns=unread)] if unread else ()),
            *([Message("rows.dated", date=str(spec.template_date))] if dated else ()),
        ),
        render=render,
        is_chat=is_chat,
        completion_only=completion_only,
        end_ids=frozenset({*end_ids, tokenizer.eos_token_id}),
    )


def _is_turns(cell: object) -> bool:
    return isinstance(cell, list | dict)


def _format_name(spec: StudySpec, first: Mapping[str, object]) -> FormatName:
    """Return the format that the spec names, or that the columns of a ``first`` row imply."""
    columns = tuple(first)
    if spec.prompt_template is not None:
        if spec.dataset_format not in {"auto", "template"}:
            raise InputError(
                f"dataset_format {spec.dataset_format!r} and a prompt_template contradict each other",
                remedy="leave one of them out",
            )
        return "template"
    for name, required in REQUIRED.items():
        if spec.dataset_format == name:
            missing = [column for column in required if column not in columns]
            if missing:
                raise InputError(
                    f"the format {name!r} needs the column {missing[0]!r}, which the rows do not have",
                    remedy=f"the columns are: {', '.join(columns)}; {_known_formats()}",
                )
            return name
        if spec.dataset_format == "auto" and set(required) <= set(columns):
            refuse_labels_and_trees(name, first)
            return name
    raise InputError(
        f"the columns {', '.join(columns)} fit no known format",
        remedy=f"{_proposed_columns(first)}give prompt_template (such as '{{{columns[0]}}}') and completion_template; "
        + _known_formats(),
    )


def _proposed_columns(first: Mapping[str, object]) -> str:
    """Return the beginning of a remedy: names for the columns, where they hold pairs or preferences."""
    prompt = next((name for name in _QUESTIONS if name in first), None)
    answer = next((name for name in ("chosen", *_ANSWERS) if name in first and name != prompt), None)
    if answer is None or (prompt is None and answer != "chosen"):
        return "rename them, or "
    # chosen conversations hold the prompt that stands beside them as text
    if prompt is not None and _is_turns(first[prompt]) == _is_turns(first[answer]):
        names = {"prompt": prompt, "completion": answer}
    else:
        names = {"messages" if _is_turns(first[answer]) else "text": answer}
    given = ",".join(f"{name}={column}" for name, column in names.items() if name != column)
    return f"name the columns{' of the chosen answers' * (answer == 'chosen')} (--columns {given}), or "


def _known_formats() -> str:
    return "formats and their columns: " + "; ".join(
        f"{name} ({', '.join(required)})" for name, required in REQUIRED.items()
    )


def _conversations(
    name: FormatName, columns: Sequence[str], template: ChatTemplate, *, completion_only: bool
) -> tuple[tuple[str, ...], Render]:
    options = tuple(column for column in OPTION_COLUMNS if column in columns and template.reads(column))
    conversations = Conversations(
        template=template, columns=REQUIRED[name], options=options, completion_only=completion_only
    )
    return (*REQUIRED[name], *options), conversations.render


def _renderer(name: FormatName, spec: StudySpec, columns: Sequence[str]) -> tuple[tuple[str, ...], Render]:
    if name == "template":
        return _template_renderer(spec, columns)
    if name == "alpaca":
        read = (*REQUIRED["alpaca"], "input") if "input" in columns else REQUIRED["alpaca"]
        return read, _render_alpaca
    return REQUIRED[name], _render_text if name == "text" else _render_pair


def _render_alpaca(row: Mapping[str, object], number: int) -> RenderedRow | Drop:
    instruction, output = cell_text(row, "instruction", number), cell_text(row, "output", number)
    context = cell_text(row, "input", number) if "input" in row else ""
    if not instruction.strip() and not context.strip():
        return Drop.BLANK
    template = ALPACA_WITH_INPUT if context else ALPACA_WITHOUT_INPUT
    return join_pair(template.format(instruction=instruction, input=context), output)


def _render_pair(row: Mapping[str, object], number: int) -> RenderedRow | Drop:
    return join_pair(cell_text(row, "prompt", number), cell_text(row, "completion", number))


def _render_text(row: Mapping[str, object], number: int) -> RenderedRow | Drop:
    text = cell_text(row, "text", number)
    return RenderedRow(text=text, prompt=text, spans=((0, len(text)),)) if text.strip() else Drop.BLANK


def _template_renderer(spec: StudySpec, columns: Sequence[str]) -> tuple[tuple[str, ...], Render]:
    assert spec.prompt_template is not None
    completion_source = spec.completion_template or f"{{{_answer_column(columns)}}}"
    prompt = compile_template(spec.prompt_template, field="prompt_template", columns=columns)
    completion = compile_template(completion_source, field="completion_template", columns=columns)

    def render(row: Mapping[str, object], number: int) -> RenderedRow | Drop:
        if all(not cell_text(row, column, number).strip() for column in completion.columns):
            return Drop.EMPTY_ANSWER
        return join_pair(prompt.fill(row, number), completion.fill(row, number))

    return tuple(dict.fromkeys(prompt.columns + completion.columns)), render


def _answer_column(columns: Sequence[str]) -> str:
    found = [column for column in ANSWER_COLUMNS if column in columns]
    if len(found) != 1:
        what = f"both {' and '.join(found)}" if found else f"none of {', '.join(ANSWER_COLUMNS)}"
        raise InputError(
            f"there is no completion_template, and the rows have {what}",
            remedy=f"give a completion_template over the columns {', '.join(columns)}",
        )
    return found[0]
