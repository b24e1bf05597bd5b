"""Columns to text: which format the rows are in, and one row's text with the place of its completion."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedTokenizerBase

from lorascope.data.formats.chat import render_chat
from lorascope.data.formats.rendered_row import Rendered, cell_text, join_pair
from lorascope.data.formats.template import compile_template
from lorascope.errors import InputError
from lorascope.spec.schema import StudySpec

FormatName = Literal["alpaca", "prompt_completion", "messages", "text", "template"]
REQUIRED: dict[FormatName, tuple[str, ...]] = {
    "messages": ("messages",),
    "prompt_completion": ("prompt", "completion"),
    "alpaca": ("instruction", "output"),
    "text": ("text",),
}
"""Columns of each format, in the order in which formats are looked for."""
ANSWER_COLUMNS = ("output", "completion", "response", "answer")

# The wording of the Stanford Alpaca project: models are trained on and asked with exactly these characters.
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

Render = Callable[[Mapping[str, object], int], Rendered | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """How rows become text."""

    name: FormatName
    columns: tuple[str, ...]
    """Columns that are read; the others are ignored."""
    render: Render
    """One row and its number (from 1) to its text; None where the row has none."""
    is_chat: bool
    """The text comes from a chat template, which brings its own special tokens and its own end."""
    completion_only: bool
    """Take the loss on the completion only."""


def choose_format(
    spec: StudySpec, *, columns: Sequence[str], first_row: Mapping[str, object], tokenizer: PreTrainedTokenizerBase
) -> Format:
    """Find the format the spec names, or else the one the columns show."""
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
                    remedy=f"the columns there are: {', '.join(columns)}; {_known_formats()}",
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

        def chat(row: Mapping[str, object], number: int) -> Rendered | None:
            return render_chat([row[column] for column in read], tokenizer, number=number, with_spans=with_spans)

        return read, chat
    if name == "template":
        return _template_renderer(spec, columns)
    if name == "alpaca":
        read = (*REQUIRED["alpaca"], "input") if "input" in columns else REQUIRED["alpaca"]
        return read, _render_alpaca
    return REQUIRED[name], _render_text if name == "text" else _render_pair


def _render_alpaca(row: Mapping[str, object], number: int) -> Rendered | None:
    instruction, output = cell_text(row, "instruction", number), cell_text(row, "output", number)
    context = cell_text(row, "input", number) if "input" in row else ""
    if not instruction.strip() and not context.strip():
        return None
    template = ALPACA_WITH_INPUT if context else ALPACA_WITHOUT_INPUT
    return join_pair(template.format(instruction=instruction, input=context), output)


def _render_pair(row: Mapping[str, object], number: int) -> Rendered | None:
    return join_pair(cell_text(row, "prompt", number), cell_text(row, "completion", number))


def _render_text(row: Mapping[str, object], number: int) -> Rendered | None:
    text = cell_text(row, "text", number)
    return Rendered(text=text, prompt=text, spans=((0, len(text)),)) if text.strip() else None


def _template_renderer(spec: StudySpec, columns: Sequence[str]) -> tuple[tuple[str, ...], Render]:
    assert spec.prompt_template is not None
    completion_source = spec.completion_template or f"{{{_answer_column(columns)}}}"
    prompt = compile_template(spec.prompt_template, field="prompt_template", columns=columns)
    completion = compile_template(completion_source, field="completion_template", columns=columns)

    def render(row: Mapping[str, object], number: int) -> Rendered | None:
        if all(not cell_text(row, column, number).strip() for column in completion.columns):
            return None
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
