"""Every message code has a sentence, every sentence is used, and a message gives the values that its sentence names."""

import ast
from collections.abc import Iterator
from pathlib import Path

import lorascope
from lorascope.text.say import names_in
from lorascope.text.sentences import SENTENCES, Plural

PACKAGE = Path(lorascope.__file__).parent


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in PACKAGE.rglob("*.py"):
        if "sentences" not in path.parts and path.name != "message.py":
            yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def messages() -> Iterator[tuple[str, ast.Call, tuple[str, ...]]]:
    """Find where messages are made, with the codes that are literals there."""
    for name, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Message":
                texts = (part.value for part in ast.walk(node.args[0]) if isinstance(part, ast.Constant))
                yield f"{name}:{node.lineno}", node, tuple(text for text in texts if isinstance(text, str))


def names_of(code: str) -> set[str]:
    sentence = SENTENCES[code]
    return names_in(sentence.one) | names_in(sentence.many) if isinstance(sentence, Plural) else names_in(sentence)


def test_every_code_that_is_used_has_a_sentence() -> None:
    used = {code for _, _, codes in messages() for code in codes}
    assert used - set(SENTENCES) == set()


def test_every_sentence_is_used() -> None:
    literals = {node.value for _, tree in trees() for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert set(SENTENCES) - literals == set()


def test_a_message_gives_the_values_that_its_sentence_names() -> None:
    for place, call, codes in messages():
        given = {keyword.arg for keyword in call.keywords if keyword.arg is not None}
        for code in codes:
            assert given == names_of(code), f"{place}: {code}"


def test_both_forms_of_a_plural_are_decided_by_a_value_they_name() -> None:
    for code, sentence in SENTENCES.items():
        if isinstance(sentence, Plural):
            assert sentence.count in names_in(sentence.one) & names_in(sentence.many), code
