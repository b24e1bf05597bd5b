"""Bring the catalogs of messages up to date with the code: ``make words``. Then translate what is empty in them."""

import sys
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

from lorascope.language import CATALOGS, DOMAIN, LANGUAGES

PACKAGE = Path(__file__).parents[2] / "src" / "lorascope"
METHODS = [("**.py", "python"), ("**.j2", "jinja2"), ("**.html", "jinja2")]
KEYWORDS = {"tr": None, "trn": (1, 2), "later": None}
TRANSLATED = [code for code in LANGUAGES if code != "en"]


def extract() -> Catalog:
    """Find every message of the package, in the order of its files."""
    found = Catalog()
    for name, line, message, _, context in sorted(
        extract_from_dir(PACKAGE, METHODS, keywords=KEYWORDS), key=lambda item: item[:2]
    ):
        found.add(message, locations=[(name, line)], context=context)
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
