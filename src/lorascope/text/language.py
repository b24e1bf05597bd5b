"""Words for people, in their language: gettext catalogs, with the English text as the key.

What a program reads (summary.json, errors, the command line) stays English; reports, charts and pages are made inside
``language(code)``. A catalog is read as it was written (``catalogs/ko/LC_MESSAGES/lorascope.po``), so that there is no
second, compiled file that could be of another day.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from string import Formatter
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


def later(message: str, /) -> str:
    """Mark a message that is written in English here and translated, with ``tr``, where it is shown."""
    return message


def retell(text: str, /) -> str:
    """Translate a text that was made from a message and stored in English; an unknown text stays as it is."""
    for pattern, message in _patterns(_CODE.get()):
        found = pattern.fullmatch(text)
        if found is not None:
            values = {name: retell(value) for name, value in found.groupdict().items()}
            return _finish(_without_formats(message).format(**values))
    return text


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


@cache
def _patterns(code: str) -> tuple[tuple[re.Pattern[str], str], ...]:
    """Make of every message what its texts look like; those with the most words of their own come first."""
    found = []
    for message, forms in _messages(code).items():
        parts = list(Formatter().parse(message))
        names = [name for _, name, *_ in parts if name is not None]
        own = sum(len(words) for words, *_ in parts)
        # "{seconds} s" and the like would take any text for one of theirs
        if len(names) == len(set(names)) and (own >= 8 or not names):
            pattern = "".join(re.escape(words) + (f"(?P<{name}>.+?)" if name else "") for words, name, *_ in parts)
            found.append((own, re.compile(pattern, re.DOTALL), forms[0]))
    return tuple((pattern, form) for _, pattern, form in sorted(found, key=lambda item: -item[0]))


def _without_formats(message: str) -> str:
    """Leave the names alone in the braces: their values were formatted when the text was made."""
    return re.sub(r"\{(\w+)[^}]*\}", r"{\1}", message)


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
