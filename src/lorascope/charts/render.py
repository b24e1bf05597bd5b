"""From a specification to a picture, without a browser and without the network."""

import contextlib
import os
from functools import cache
from html import escape
from importlib.metadata import version

import vl_convert

from lorascope.cache import cache_folder
from lorascope.charts.elements import INK, Spec

PNG_SCALE = 2.0
"""Pixels of a PNG for each unit of the chart, for sharp text on dense screens."""


@cache
def script() -> str:
    """Return the JavaScript that draws specifications in a browser (vegaEmbed, vegaLite, vega); it loads nothing.

    Putting it together takes seconds, so that it is kept in the cache folder, where that can be written.
    """
    kept = cache_folder() / f"vega-{version('vl-convert-python')}.js"
    with contextlib.suppress(OSError):
        return kept.read_text(encoding="utf-8")
    bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # the stub knows no default
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        temporary = kept.with_name(f".{kept.name}.{os.getpid()}.tmp")
        temporary.write_text(bundle, encoding="utf-8")
        temporary.replace(kept)
    return bundle


def to_svg(spec: Spec) -> str:
    """Draw as SVG text."""
    svg: str = vl_convert.vegalite_to_svg(spec)
    return svg


def to_png(spec: Spec) -> bytes:
    """Draw as PNG on white, since a reader of Markdown may show it on any ground."""
    return svg_to_png(to_svg(spec))


def svg_to_png(svg: str) -> bytes:
    """Draw an SVG of ``to_svg`` as PNG on white."""
    head, end, body = svg.partition(">")
    png: bytes = vl_convert.svg_to_png(f'{head}{end}<rect width="100%" height="100%" fill="white"/>{body}', PNG_SCALE)
    return png


def to_html(spec: Spec, *, label: str) -> str:
    """Draw as a fragment for a page: SVG in the page's text colour, named for who cannot see it."""
    return svg_to_html(to_svg(spec), label=label)


def svg_to_html(svg: str, *, label: str) -> str:
    """Put an SVG of ``to_svg`` into a fragment for a page."""
    return f'<figure role="img" aria-label="{escape(label)}">{svg.replace(INK, "currentColor")}</figure>'
