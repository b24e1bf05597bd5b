"""Every word for people has its translation, and every message can be found by the tool that collects them."""

import ast
import re
from string import Formatter

import pytest
from babel.messages.catalog import Message

from catalogs import TRANSLATED, calls, extract, forms, read
from lorascope.metrics import METRICS

SAME_IN_ALL = {
    "%", "GPU", "MB", "{name} {before}, later {after}", "{mean} ({low} to {high})", "{value} ({low} to {high})",
    "{smaller} to {larger}", "{low} to {high}", "{what} from {low} to {high}", "{dtype} on {device}",
    "{model} on {dataset}",
}  # fmt: skip


def messages(code: str) -> list[Message]:
    return [message for message in read(code) if message.id]


def fields(text: str) -> set[tuple[str, str | None, str | None]]:
    return {(name, spec, conversion) for _, name, spec, conversion in Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("code", TRANSLATED)
def test_catalog_translates_every_message_and_no_other(code: str) -> None:
    wanted = {forms(message.id) for message in extract() if message.id}
    found = {forms(message.id) for message in messages(code)}
    assert wanted - found == set(), "run make words, then translate"
    assert found - wanted == set(), "run make words"
    assert [message.id for message in messages(code) if message.fuzzy or not all(forms(message.string))] == []
    assert not read(code).obsolete


@pytest.mark.parametrize("code", TRANSLATED)
def test_catalog_translations_name_the_values_of_their_message(code: str) -> None:
    for message in messages(code):
        asked = set.union(*map(fields, forms(message.id)))
        for form in forms(message.string):
            assert fields(form) == asked - ({("count", "", None)} - fields(form)), message.id


def test_catalog_korean_is_in_hangul() -> None:
    bare = {message.id for message in messages("ko") if not re.search("[가-힣]", forms(message.string)[0])}
    assert bare <= SAME_IN_ALL


def test_catalog_messages_are_literals() -> None:
    """An f-string, or a text put together before it is translated, is no key of any catalog."""
    registered = {"say.py", "metrics.py"}  # templates of messages and labels of metrics, which have tests of their own
    for path, node, _, texts in calls():
        assert texts, f"{path}:{node.lineno}"
        assert path.name in registered or all(isinstance(text, ast.Constant) for text in texts), f"{path}:{node.lineno}"


def test_catalog_has_the_labels_of_every_metric() -> None:
    known = {forms(message.id)[0] for message in extract()}
    assert {words for metric in METRICS.values() for words in (metric.label, metric.unit)} <= known
