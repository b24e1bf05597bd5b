"""Bring the catalogs of messages up to date with the code: ``make words``. Then translate what is empty in them."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

from lorascope.metrics import METRICS
from lorascope.text.language import CATALOGS, DOMAIN, LANGUAGES

PACKAGE = Path(__file__).parents[1] / "src" / "lorascope"
TRANSLATED = [code for code in LANGUAGES if code != "en"]
TEXTS = {"tr": 1, "trn": 2, "later": 1}
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
    for path, node, _, texts in calls():
        message = tuple(text.value for text in texts if isinstance(text, ast.Constant))
        if message:
            place = (path.relative_to(PACKAGE).as_posix(), node.lineno)
            found.add(message if len(message) > 1 else message[0], locations=[place])
    for text in (text for metric in METRICS.values() for text in (metric.label, metric.unit) if text):
        found.add(text, locations=[("metrics.py", 1)])
    keywords = {name: None if count == 1 else (1, 2) for name, count in TEXTS.items()}
    methods = [("**.j2", "jinja2"), ("**.html", "jinja2")]
    for name, line, message, *_ in extract_from_dir(PACKAGE, methods, keywords=keywords):
        found.add(message, locations=[(name, line)])
    return found


def path_of(code: str) -> Path:
    return CATALOGS / code / "LC_MESSAGES" / f"{DOMAIN}.po"


def read(code: str) -> Catalog:
    with path_of(code).open("rb") as file:
        return read_po(file, locale=code, domain=DOMAIN)


def update(code: str) -> None:
    """Add new messages, without a translation, and drop those that are gone."""
    catalog = read(code)
    catalog.update(extract(), no_fuzzy_matching=True, update_creation_date=False)
    with path_of(code).open("wb") as file:
        write_po(file, catalog, width=120, sort_output=True, ignore_obsolete=True, include_lineno=False)


if __name__ == "__main__":
    for language in TRANSLATED:
        update(language)
        empty = [message.id for message in read(language) if message.id and not message.string]
        sys.stdout.write(f"{path_of(language)}: {len(empty)} messages without a translation\n")
