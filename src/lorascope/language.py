"""Words for people, in their language: gettext, with the English text as the key.

What a program reads (summary.json, errors, the command line) stays English; reports, charts and pages are made inside
``language(code)``.
"""

import gettext
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

LANGUAGES = ("en", "ko")
_DOMAIN = "lorascope"
_CATALOGS = Path(__file__).parent / "locales"
_CODE: ContextVar[str] = ContextVar("language", default="en")


@contextmanager
def language(code: str) -> Iterator[None]:
    """Use a language of ``LANGUAGES`` within this context; each thread and task has its own."""
    token = _CODE.set(code)
    try:
        yield
    finally:
        _CODE.reset(token)


def current_language() -> str:
    """Return the language in use."""
    return _CODE.get()


def tr(message: str, /, **values: object) -> str:
    """Translate a message and fill its ``{names}``; an unknown message stays as it is."""
    return _translations(_CODE.get()).gettext(message).format(**values)


def trn(one: str, many: str, count: int, /, **values: object) -> str:
    """Translate a message that depends on a count, which it may name as ``{count}``."""
    return _translations(_CODE.get()).ngettext(one, many, count).format(count=count, **values)


@cache
def _translations(code: str) -> gettext.NullTranslations:
    return gettext.translation(_DOMAIN, _CATALOGS, languages=[code], fallback=True)
