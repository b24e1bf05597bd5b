"""Fonts with the glyphs of each language."""

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import vl_convert

from lorascope.errors import InputError
from lorascope.text.language import current_language

_PLAIN = "system-ui, DejaVu Sans, sans-serif"
_FAMILIES = {"ko": "Noto Sans KR"}
"""First in the list, lest the renderer falls back on a serif font of the same package."""
_LETTERS = {"ko": ("Korean", "가힣")}
"""A language's name and two of its letters; rendered alike, both are an empty box."""
_PACKAGES = {"ko": "pylopdf-fonts-ko"}
"""Package with fonts of a language; only its font files are used."""
_SAMPLE = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="24" height="24">'
    '<text x="2" y="18" font-family="sans-serif" font-size="16">{letter}</text></svg>'
)


def font_family() -> str:
    """Return the font families of charts in the language in use, the best first."""
    family = _FAMILIES.get(current_language())
    return f"{family}, {_PLAIN}" if family else _PLAIN


def check_fonts() -> None:
    """Check that charts can be rendered in the language in use. Raises InputError without a font for it."""
    code = current_language()
    if code not in _LETTERS:
        return
    name, letters = _LETTERS[code]
    _register(code)
    if not has_letters(letters):
        raise InputError(
            f"no font on this machine has {name} letters, and charts would show empty boxes in their place",
            remedy=f"pip install {_PACKAGES[code]}, or install a {name} font on this system",
        )


def has_letters(letters: str) -> bool:
    """Return True if a font has all the letters: missing ones look alike."""
    drawn = {vl_convert.svg_to_png(_SAMPLE.format(letter=letter)) for letter in letters}
    return len(drawn) == len(letters)


def font_files(code: str) -> list[Path]:
    """Return the font files of a language's package, sans serif first; none where it is not installed or not needed."""
    try:
        found = files(_PACKAGES[code]) or ()
    except (KeyError, PackageNotFoundError):
        return []
    fonts = [Path(str(file.locate())) for file in found if file.suffix in (".ttf", ".otf", ".ttc")]
    return sorted(fonts, key=lambda font: ("Sans" not in font.name, font.name))


def _register(code: str) -> None:
    """Register the font folders of a language's package with the renderer."""
    for folder in sorted({font.parent for font in font_files(code)}):
        vl_convert.register_font_directory(str(folder))
