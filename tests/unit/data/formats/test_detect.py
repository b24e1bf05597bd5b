from collections.abc import Mapping

import pytest
from transformers import PreTrainedTokenizerFast

from lorascope.data.formats.detect import ALPACA_WITH_INPUT, Format, choose_format
from lorascope.data.formats.rendering import Drop, RenderedRow
from lorascope.errors import InputError
from lorascope.message import Message
from lorascope.spec.schema import StudySpec


def render(
    spec: StudySpec, row: Mapping[str, object], tokenizer: PreTrainedTokenizerFast, number: int = 1
) -> tuple[Format, RenderedRow]:
    chosen = choose_format(spec, columns=list(row), first_row=row, tokenizer=tokenizer)
    rendered = chosen.render(row, number)
    assert isinstance(rendered, RenderedRow)
    return chosen, rendered


def targets(rendered: RenderedRow) -> list[str]:
    return [rendered.text[start:end] for start, end in rendered.spans]


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        (("instruction", "input", "output", "text"), "alpaca"),
        (("instruction", "output"), "alpaca"),
        (("prompt", "completion", "id"), "prompt_completion"),
        (("text",), "text"),
    ],
)
def test_format_is_detected_by_columns(tokenizer: PreTrainedTokenizerFast, columns: tuple[str, ...], name: str) -> None:
    chosen, _ = render(StudySpec(), dict.fromkeys(columns, "word"), tokenizer)
    assert chosen.name == name
    assert chosen.completion_only == (name != "text")


def test_alpaca_prompt_is_that_of_stanford(tokenizer: PreTrainedTokenizerFast) -> None:
    row = {"instruction": "Add.", "input": "1, 2", "output": "3"}
    _, rendered = render(StudySpec(), row, tokenizer)
    assert rendered.text == (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1, 2\n\n"
        "### Response:3"
    )
    assert targets(rendered) == ["3"]
    _, rendered = render(StudySpec(), {**row, "input": ""}, tokenizer)
    assert rendered.text == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nAdd.\n\n### Response:3"
    )


def test_context_and_response_beside_an_instruction_are_input_and_output(tokenizer: PreTrainedTokenizerFast) -> None:
    row = {"instruction": "Add.", "context": "1, 2", "response": "3", "category": "math"}
    chosen, rendered = render(StudySpec(), row, tokenizer)
    assert (chosen.name, chosen.columns) == ("alpaca", ("instruction", "response", "context"))
    assert chosen.notes == (Message("rows.unread_columns", columns=("category",)),)
    assert rendered.text == ALPACA_WITH_INPUT.format(instruction="Add.", input="1, 2") + "3"
    assert render(StudySpec(columns={"output": "category"}), row, tokenizer)[1].text.endswith("math")
    assert render(StudySpec(prompt_template="{context}: "), row, tokenizer)[1].text == "1, 2: 3"


def test_braces_in_cells_stay_text(tokenizer: PreTrainedTokenizerFast) -> None:
    row = {"instruction": "{output} {0}", "input": "{", "output": "}"}
    _, rendered = render(StudySpec(), row, tokenizer)
    assert rendered.text == ALPACA_WITH_INPUT.format(instruction="{output} {0}", input="{") + "}"
    spec = StudySpec(prompt_template="{instruction}|")
    assert render(spec, row, tokenizer)[1].text == "{output} {0}|}"


def test_template_of_the_published_study(tokenizer: PreTrainedTokenizerFast) -> None:
    spec = StudySpec(prompt_template="### Question: {instruction}\n ### Answer: ")
    chosen, rendered = render(spec, {"instruction": "Add.", "input": "", "output": "3"}, tokenizer)
    assert chosen.columns == ("instruction", "output")
    assert rendered.text == "### Question: Add.\n ### Answer: 3"
    assert targets(rendered) == ["3"]


def test_templates_write_numbers_and_doubled_braces(tokenizer: PreTrainedTokenizerFast) -> None:
    spec = StudySpec(prompt_template="{{{id}}}: ", completion_template="{a}/{b}")
    _, rendered = render(spec, {"id": 7, "a": None, "b": 0.5}, tokenizer)
    assert rendered.text == "{7}: /0.5"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{a.__class__}", "reaches into 'a.__class__'"),
        ("{a[0]}", "reaches into 'a[0]'"),
        ("{a!r}", "formats 'a'"),
        ("{a:>10}", "formats 'a'"),
        ("{}", "names the column ''"),
        ("{0}", "names the column '0'"),
        ("{b}", "names the column 'b'"),
        ("{a", "is not a template"),
        ("}", "is not a template"),
    ],
)
def test_only_column_names_stand_in_braces(tokenizer: PreTrainedTokenizerFast, template: str | None, said: str) -> None:
    with pytest.raises(InputError, match="prompt_template") as caught:
        render(StudySpec(prompt_template=template), {"a": "x", "output": "y"}, tokenizer)
    assert said in caught.value.problem


@pytest.mark.parametrize(
    ("row", "said", "remedy"),
    [
        ({"question": "a", "answer": "b"}, "fit no", "name the columns (--columns prompt=question,completion=answer)"),
        ({"query": "a", "answers": "[]", "tools": "[]"}, "fit no", "--columns prompt=query,completion=answers)"),
        ({"prompt": "a", "response": "b"}, "fit no", "--columns completion=response)"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "fit no", "chosen answers (--columns completion=chosen)"),
        ({"system": "s", "question": "a", "chosen": "b"}, "fit no", "prompt=question,completion=chosen)"),
        ({"chosen": "a: b", "rejected": "a: c"}, "fit no", "(--columns text=chosen)"),
        ({"prompt": "a", "chosen": [{}], "rejected": [{}]}, "fit no", "(--columns messages=chosen)"),
        ({"prompt": [{}], "chosen": [{}], "rejected": [{}]}, "fit no", "(--columns completion=chosen)"),
        ({"name": "a", "reply": "b"}, "the columns name, reply fit no", "rename them, or give prompt_template"),
        ({"prompt": "a", "completion": "b", "label": True}, "which are bad", "dataset_format prompt_completion"),
        ({"prompt": "a", "completion": "b", "label": "False"}, "which are bad", "dataset_format prompt_completion"),
        ({"parent_id": None, "text": "a", "role": "prompter"}, "single messages", "dataset_format text"),
    ],
)  # fmt: skip
def test_rows_that_do_not_say_what_to_learn_are_refused_with_a_proposal(
    tokenizer: PreTrainedTokenizerFast, row: dict[str, object], said: str, remedy: str
) -> None:
    with pytest.raises(InputError, match=said) as caught:
        choose_format(StudySpec(), columns=list(row), first_row=row, tokenizer=tokenizer)
    assert remedy in caught.value.remedy
    if "dataset_format" in remedy:
        named = StudySpec(dataset_format="text" if "text" in row else "prompt_completion")
        assert choose_format(named, columns=list(row), first_row=row, tokenizer=tokenizer).name in remedy


@pytest.mark.parametrize(
    ("spec", "columns", "said"),
    [
        (StudySpec(), ("question", "reply"), "the columns question, reply fit no known format"),
        (StudySpec(dataset_format="alpaca"), ("instruction", "text"), "needs the column 'output'"),
        (StudySpec(prompt_template="{a}"), ("a", "b"), "none of output, completion, response, answer"),
        (StudySpec(prompt_template="{a}"), ("a", "output", "answer"), "both output and answer"),
        (StudySpec(prompt_template="{a}", dataset_format="text"), ("a", "text"), "contradict"),
        (StudySpec(completion_only_loss=True), ("text",), "no completion"),
    ],
)
def test_format_with_missing_columns_is_refused(
    tokenizer: PreTrainedTokenizerFast, spec: StudySpec, columns: tuple[str, ...], said: str
) -> None:
    with pytest.raises(InputError) as caught:
        render(spec, dict.fromkeys(columns, "word"), tokenizer)
    assert said in caught.value.problem
    assert "contradict" in said or any(column in str(caught.value) for column in columns)


def test_a_nested_cell_is_named_by_row_and_column(tokenizer: PreTrainedTokenizerFast) -> None:
    row = {"instruction": "a", "output": ["b"]}
    with pytest.raises(InputError, match="row 4, column 'output' holds a list"):
        render(StudySpec(), row, tokenizer, number=4)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"instruction": "Add.", "output": " "}, Drop.EMPTY_ANSWER),
        ({"instruction": None, "output": "3"}, Drop.BLANK),
        ({"prompt": "Add.", "completion": None}, Drop.EMPTY_ANSWER),
        ({"prompt": "", "completion": " "}, Drop.BLANK),
        ({"text": "\n"}, Drop.BLANK),
        ({"messages": []}, Drop.BLANK),
        ({"messages": None}, Drop.BLANK),
        ({"messages": [{"role": "user", "content": "Add."}]}, Drop.NO_ANSWER),
        (
            {"messages": [{"role": "user", "content": "Add."}, {"role": "assistant", "content": None}]},
            Drop.EMPTY_ANSWER,
        ),
    ],
)
def test_unusable_rows_are_dropped_with_the_reason(
    tokenizer: PreTrainedTokenizerFast, row: dict[str, object], why: Drop
) -> None:
    chosen = choose_format(StudySpec(), columns=list(row), first_row=row, tokenizer=tokenizer)
    assert chosen.render(row, 1) is why


TALK = [
    {"role": "user", "content": "Add 1 and 2."},
    {"role": "assistant", "content": "3", "tool_calls": None},
    {"role": "user", "content": "And 4?"},
    {"role": "assistant", "content": "7", "tool_calls": None},
]


def test_messages_have_their_loss_on_the_assistants_turns(tokenizer: PreTrainedTokenizerFast) -> None:
    chosen, rendered = render(StudySpec(), {"messages": TALK}, tokenizer)
    assert chosen.is_chat
    assert rendered.text == tokenizer.apply_chat_template(TALK, tokenize=False)
    assert targets(rendered) == ["3</s>\n", "7</s>\n"]
    assert rendered.prompt == "user: Add 1 and 2."


def test_prompt_and_completion_may_be_messages(tokenizer: PreTrainedTokenizerFast) -> None:
    chosen, rendered = render(StudySpec(), {"prompt": TALK[:3], "completion": TALK[3:]}, tokenizer)
    assert chosen.is_chat
    assert rendered.text == tokenizer.apply_chat_template(TALK, tokenize=False)
    assert targets(rendered) == ["7</s>\n"]
    assert rendered.prompt == "user: Add 1 and 2.\nassistant: 3\nuser: And 4?"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "has no chat template"),
        ("{{ raise_exception('only one turn') }}", "only one turn"),
        ("{{ ''.__class__.__mro__ }}", "refuses"),
        ("{% for m in messages %}{{ m['role'] }}{% endfor %}", "does not write turn 2 of row 1 in one place"),
        ("{% for m in messages %}{{ m['content'] * 2 }}{% endfor %}", "does not write turn 2 of row 1 in one place"),
    ],
)
def test_unusable_chat_templates_are_refused(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch, template: str | None, said: str
) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", template)
    with pytest.raises(InputError) as caught:
        render(StudySpec(), {"messages": TALK}, tokenizer)
    assert said in caught.value.problem


@pytest.mark.parametrize("messages", ["hello", [{"content": "x"}], [{"role": "user", "content": [1]}]])
def test_invalid_messages_are_refused_by_row(tokenizer: PreTrainedTokenizerFast, messages: object) -> None:
    with pytest.raises(InputError, match="row 3 h"):
        render(StudySpec(), {"messages": messages}, tokenizer, number=3)
