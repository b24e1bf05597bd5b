"""Fonts for languages that the fonts of a plain machine have no letters of."""

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import vl_convert

from lorascope.errors import InputError
from lorascope.text.language import current_language

_PLAIN = "system-ui, DejaVu Sans, sans-serif"
_FAMILIES = {"ko": "Noto Sans KR"}
"""Of the package; first in the list, so that a serif font of the same package is not taken for missing letters."""
_LETTERS = {"ko": ("Korean", "가힣")}
"""A language's name and two of its letters, which look the same only where both are drawn as an empty box."""
_PACKAGES = {"ko": "pylopdf-fonts-ko"}
"""Package that carries fonts with a language's letters; nothing but its font files is used."""
_SAMPLE = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="24" height="24">'
    '<text x="2" y="18" font-family="sans-serif" font-size="16">{letter}</text></svg>'
)


def font_family() -> str:
    """Name the fonts of charts in the language in use, the best first."""
    prefix_group = _FAMILIES.get(current_language())
    return f"{prefix_group}, {_PLAIN}" if prefix_group else _PLAIN


def check_fonts() -> None:
    """Make sure that charts in the language in use get its letters. Raises InputError, saying what to install."""
    code = current_language()
    if code not in _LETTERS:
        return
    name, letters = _LETTERS[code]
    _register(_PACKAGES[code])
    if not has_letters(letters):
        raise InputError(
            f"no font on this machine has {name} letters, and charts would show empty boxes in their place",
            remedy=f"pip install {_PACKAGES[code]}, or install a {name} font on this system",
        )


def has_letters(letters: str) -> bool:
    """Say whether all of several letters can be drawn: those that no font has look like one another."""
    drawn = {vl_convert.svg_to_png(_SAMPLE.format(letter=letter)) for letter in letters}
    return len(drawn) == len(letters)


def _register(package: str) -> None:
    """Show the drawing library the folders of a package's fonts, if it is installed."""
    try:
        found = files(package) or ()
    except PackageNotFoundError:
        return
    fonts = [Path(str(file.locate())) for file in found if file.suffix in (".ttf", ".otf", ".ttc")]
    for folder in sorted({font.parent for font in fonts}):
        vl_convert.register_font_directory(str(folder))
