"""A font inside the report, for languages whose letters the reader's system may lack."""

import base64
import importlib.util
import io
from pathlib import Path

from lorascope.charts.fonts import font_family, font_files
from lorascope.text.language import current_language

_FIRST = "\u2e80"
"""Letters from this one on, those of East Asian scripts, are in the embedded font; a system has the others."""


def with_font(html: str) -> str:
    """Return a page with a font of the language in use that has the page's letters.

    It stays as it is where it has no such letters, or the packages of the extra ``ko`` are not installed: a browser
    then draws with the fonts of its system.
    """
    files = font_files(current_language())
    letters = "".join(sorted({letter for letter in html if letter >= _FIRST}))
    if not files or not letters or importlib.util.find_spec("fontTools") is None:
        return html
    source = base64.b64encode(_cut_down(files[0], letters)).decode("ascii")
    family = font_family().partition(",")[0]
    style = (
        f':root {{ --letters: "{family}",; }}\n@font-face {{ font-family: "{family}"; font-display: block; '
        f"unicode-range: U+{ord(_FIRST):X}-FFFF; src: url(data:font/woff;base64,{source}); }}"
    )
    return html.replace("<style>", f"<style>\n{style}", 1)


def _cut_down(file: Path, letters: str) -> bytes:
    """Return a WOFF font with some letters of a font file; the same bytes for the same letters."""
    from fontTools import subset  # noqa: PLC0415 - it need not be installed

    options = subset.Options(flavor="woff", desubroutinize=True, layout_features=[])
    packed, subsetter = io.BytesIO(), subset.Subsetter(options)
    with subset.load_font(str(file), options) as font:
        font.recalcTimestamp = False
        subsetter.populate(text=letters)
        subsetter.subset(font)
        font.save(packed)
    return packed.getvalue()
