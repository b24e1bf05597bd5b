"""Bring the catalogs of messages up to date with the code: ``make words``. Then translate what is empty in them."""

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

from lorascope.metrics import METRICS
from lorascope.text.language import CATALOGS, DOMAIN, LANGUAGES
from lorascope.text.sentences import SENTENCES, Plural

PACKAGE = Path(__file__).parents[1] / "src" / "lorascope"
TRANSLATED = [code for code in LANGUAGES if code != "en"]
NAME = re.compile(r"\{[^{}]*\}")
TEXTS = {"tr": 1, "trn": 2}
"""Functions that take messages, and how many they take."""


def calls() -> Iterator[tuple[Path, ast.Call, str, list[ast.expr]]]:
    """Find every call that takes messages, also inside another one's arguments or an f-string: what Babel misses."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in TEXTS:
                yield path, node, node.func.id, node.args[: TEXTS[node.func.id]]


def extract() -> Catalog:
    """Collect the messages of the package's code and templates."""
    found = Catalog()
    for *_, texts in calls():
        words = tuple(text.value for text in texts if isinstance(text, ast.Constant) and isinstance(text.value, str))
        if words:
            found.add(words if len(words) > 1 else words[0])
    for text in (text for metric in METRICS.values() for text in (metric.label, metric.unit) if text):
        found.add(text)
    for sentence in SENTENCES.values():
        template = (sentence.one, sentence.many) if isinstance(sentence, Plural) else sentence
        if re.search("[A-Za-z]", without_names(forms(template)[0])):  # else it says the same in every language
            found.add(template)
    keywords = {name: None if count == 1 else (1, 2) for name, count in TEXTS.items()}
    methods = [("**.j2", "jinja2"), ("**.html", "jinja2")]
    for _, _, message, *_ in extract_from_dir(PACKAGE, methods, keywords=keywords):
        found.add(message)
    return found


def path_of(code: str) -> Path:
    return CATALOGS / code / "LC_MESSAGES" / f"{DOMAIN}.po"


def read(code: str) -> Catalog:
    with path_of(code).open("rb") as file:
        return read_po(file, locale=code, domain=DOMAIN)


def update(code: str) -> None:
    """Add new messages and drop those that are gone.

    A message that differs from an old one only within its braces keeps the translation, with the same change in it.
    """
    catalog = read(code)
    old = {without_names(forms(message.id)[0]): message for message in read(code) if message.id and message.string}
    catalog.update(extract(), no_fuzzy_matching=True, update_creation_date=False)
    for message in catalog:
        same = old.get(without_names(forms(message.id)[0]))
        if same is not None and not any(message.string or ()):
            message.string = carried_over(same, forms(message.id)[0])
    with path_of(code).open("wb") as file:
        write_po(file, catalog, width=120, sort_output=True, ignore_obsolete=True, no_location=True)


def forms(text: str | Sequence[str]) -> tuple[str, ...]:
    """Return a message's forms: one, or singular and plural."""
    return (text,) if isinstance(text, str) else tuple(text)


def without_names(text: str) -> str:
    return NAME.sub("{}", text)


def carried_over(old: Message, new: str) -> str | tuple[str, ...]:
    """Rename the values in a translation as they were renamed from the old message to the new one."""
    renamed = dict(zip(NAME.findall(forms(old.id)[0]), NAME.findall(new), strict=True))
    texts = tuple(NAME.sub(lambda name: renamed.get(name[0], name[0]), text) for text in forms(old.string or ""))
    return texts[0] if isinstance(old.string, str) else texts


if __name__ == "__main__":
    for language in TRANSLATED:
        update(language)
        empty = [message.id for message in read(language) if message.id and not message.string]
        sys.stdout.write(f"{path_of(language)}: {len(empty)} messages without a translation\n")
