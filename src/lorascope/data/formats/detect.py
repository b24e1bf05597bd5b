"""Row formats: detection by column names, and rendering of rows to text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedTokenizerBase

from lorascope.data.formats.chat import render_chat
from lorascope.data.formats.rendering import Drop, RenderedRow, cell_text, compile_template, join_pair
from lorascope.errors import InputError
from lorascope.spec.schema import StudySpec

FormatName = Literal["alpaca", "prompt_completion", "messages", "text", "template"]
REQUIRED: dict[FormatName, tuple[str, ...]] = {
    "messages": ("messages",),
    "prompt_completion": ("prompt", "completion"),
    "alpaca": ("instruction", "output"),
    "text": ("text",),
}
"""Required columns of each format, in the order of detection."""
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

Render = Callable[[Mapping[str, object], int], RenderedRow | Drop]


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """A row format."""

    name: FormatName
    columns: tuple[str, ...]
    """Columns that are read."""
    render: Render
    """Render a row, given its number from 1, or say why it is dropped."""
    is_chat: bool
    """True if a chat template renders rows, which adds special tokens and an end token itself."""
    completion_only: bool
    """True if the loss is taken on the completion only."""


def choose_format(
    spec: StudySpec, *, columns: Sequence[str], first_row: Mapping[str, object], tokenizer: PreTrainedTokenizerBase
) -> Format:
    """Return the format that the spec names or the columns imply."""
    name = _format_name(spec, columns)
    if name == "text" and spec.completion_only_loss:
        raise InputError(
            "completion_only_loss is on, but rows of the format 'text' have no completion",
            remedy="leave completion_only_loss out, or give prompt and completion in columns of their own",
        )
    completion_only = name != "text" and spec.completion_only_loss is not False
    is_chat = name == "messages" or (name == "prompt_completion" and isinstance(first_row["prompt"], list))
    read, render = _renderer(name, spec, columns, tokenizer, is_chat=is_chat, with_spans=completion_only)
    return Format(name=name, columns=read, render=render, is_chat=is_chat, completion_only=completion_only)


def _format_name(spec: StudySpec, columns: Sequence[str]) -> FormatName:
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
            return name
    raise InputError(
        f"the columns {', '.join(columns)} fit no known format",
        remedy=f"rename them, or give prompt_template (such as '{{{columns[0]}}}') and completion_template; "
        + _known_formats(),
    )


def _known_formats() -> str:
    return "formats and their columns: " + "; ".join(
        f"{name} ({', '.join(required)})" for name, required in REQUIRED.items()
    )


def _renderer(
    name: FormatName,
    spec: StudySpec,
    columns: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    is_chat: bool,
    with_spans: bool,
) -> tuple[tuple[str, ...], Render]:
    if is_chat:
        read = REQUIRED[name]

        def chat(row: Mapping[str, object], number: int) -> RenderedRow | Drop:
            return render_chat([row[column] for column in read], tokenizer, number=number, with_spans=with_spans)

        return read, chat
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
