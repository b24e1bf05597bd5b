"""Translation: gettext catalogs, keyed by the English text.

Reports, charts and pages are rendered inside ``language(code)``; summary.json, errors and the command line are English.
A catalog is read from its source (``catalogs/ko/LC_MESSAGES/lorascope.po``): a compiled one could be out of date.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from lorascope.errors import InputError

Language = Literal["en", "ko"]
LANGUAGES: tuple[str, ...] = get_args(Language)
CATALOGS = Path(__file__).parent / "catalogs"
DOMAIN = "lorascope"
_CODE: ContextVar[str] = ContextVar("language", default="en")

Forms = tuple[str, ...]
"""A message in a language: one form, or one for each kind of count."""


@contextmanager
def language(code: str) -> Iterator[None]:
    """Use a language within this context; each thread and task has its own. Raises InputError for an unknown one."""
    if code not in LANGUAGES:
        raise InputError(f"there is no language {code!r}", remedy=f"use one of: {', '.join(LANGUAGES)}")
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
    forms = _messages(_CODE.get()).get(message)
    return _finish((forms[0] if forms else message).format(**values))


def trn(one: str, many: str, count: int, /, **values: object) -> str:
    """Translate a message that depends on a count, which it may name as ``{count}``."""
    forms = _messages(_CODE.get()).get(one)
    # English has two forms, and no other language here has more than one
    form = forms[0] if forms else one if count == 1 else many
    return _finish(form.format(**{"count": count, **values}))


@cache
def _messages(code: str) -> Mapping[str, Forms]:
    """Read a catalog: the forms by the English text, of a plural by the English singular."""
    if code == "en":
        return {}
    from babel.messages.pofile import read_po  # noqa: PLC0415 - English needs neither the module nor a catalog

    with (CATALOGS / code / "LC_MESSAGES" / f"{DOMAIN}.po").open("rb") as file:
        catalog = read_po(file, locale=code, domain=DOMAIN)
    forms: dict[str, Forms] = {}
    for message in catalog:
        key = message.id if isinstance(message.id, str) else message.id[0]
        found = (message.string,) if isinstance(message.string, str) else tuple(message.string or ())
        if key and found and all(found):
            forms[key] = found
    return forms


_PARTICLES = {"은(는)": "은는", "이(가)": "이가", "을(를)": "을를", "과(와)": "과와", "(으)로": ("으로", "로")}
"""Korean particles as catalogs write them, then the form behind a consonant and the one behind a vowel."""
_PARTICLE = re.compile(r"([0-9가-힣])(은\(는\)|이\(가\)|을\(를\)|과\(와\)|\(으\)로)")
_VOWEL, _L = 0, 8
"""Final sounds by their place in Unicode's syllables: none, and the ㄹ that 로 follows as if it were a vowel."""
_DIGITS = dict(zip("0123456789", (21, _L, _VOWEL, 16, _VOWEL, _VOWEL, 1, _L, _L, _VOWEL), strict=True))
"""Final sounds of 영 일 이 삼 사 오 육 칠 팔 구; 십, 백, 천 and 만 end in consonants as 영 does."""


def _finish(text: str) -> str:
    return _PARTICLE.sub(_particle, text) if _CODE.get() == "ko" else text


def _particle(found: re.Match[str]) -> str:
    """Choose the form of a particle by the sound before it, known only once values are filled in."""
    before, particle = found.groups()
    final = _DIGITS[before] if before in _DIGITS else (ord(before) - ord("가")) % 28
    consonant, vowel = _PARTICLES[particle]
    follows_vowel = final == _VOWEL or (particle == "(으)로" and final == _L)
    return before + (vowel if follows_vowel else consonant)
