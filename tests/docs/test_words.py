"""Every word for people has its translation, and every message can be found by the tool that collects them."""

import ast
import re
from collections.abc import Iterator
from string import Formatter

import pytest
from babel.messages.catalog import Message
from words import KEYWORDS, PACKAGE, TRANSLATED, extract, read

from lorascope.metrics import METRICS

SAME_IN_ALL = {"MB", "{name} {before}, later {after}"}


def messages(code: str) -> list[Message]:
    return [message for message in read(code) if message.id]


def forms(text: str | tuple[str, ...]) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else text


def fields(text: str) -> set[tuple[str, str | None, str | None]]:
    return {(name, spec, conversion) for _, name, spec, conversion in Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("code", TRANSLATED)
def test_every_message_is_translated_and_no_other(code: str) -> None:
    wanted = {forms(message.id) for message in extract() if message.id}
    found = {forms(message.id) for message in messages(code)}
    assert wanted - found == set(), "run make words, then translate"
    assert found - wanted == set(), "run make words"
    assert [message.id for message in messages(code) if message.fuzzy or not all(forms(message.string))] == []
    assert not read(code).obsolete


@pytest.mark.parametrize("code", TRANSLATED)
def test_a_translation_names_the_values_of_its_message(code: str) -> None:
    for message in messages(code):
        asked = set.union(*map(fields, forms(message.id)))
        for form in forms(message.string):
            assert fields(form) == asked - ({("count", "", None)} - fields(form)), message.id


def test_korean_is_written_in_hangul() -> None:
    bare = {message.id for message in messages("ko") if not re.search("[가-힣]", forms(message.string)[0])}
    assert bare <= SAME_IN_ALL


def calls() -> Iterator[tuple[str, str, list[ast.expr]]]:
    """Place, function and texts of every call that translates or marks a message."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KEYWORDS:
                n_texts = 2 if node.func.id == "trn" else 1
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", node.func.id, node.args[:n_texts]


def test_messages_are_literals_or_marked_constants() -> None:
    """An f-string, or a text put together before it is translated, is no key of any catalog."""
    for place, name, texts in calls():
        marked = () if name == "later" else (ast.Attribute, ast.Subscript, ast.Name)
        assert texts, place
        assert all(isinstance(text, (ast.Constant, *marked)) for text in texts), place


def test_every_literal_is_found_by_the_tool_that_collects_messages() -> None:
    """It sees no call inside the arguments of another, nor inside an f-string."""
    known = {forms(message.id)[0] for message in extract()}
    missed = [place for place, _, (text, *_) in calls() if isinstance(text, ast.Constant) and text.value not in known]
    assert missed == []
    assert {words for metric in METRICS.values() for words in (metric.label, metric.unit)} <= known | {""}
