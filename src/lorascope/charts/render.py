"""From a specification to a picture, without a browser and without the network."""

from functools import cache
from html import escape
from typing import Any

import vl_convert

from lorascope.charts.specs import INK

PNG_SCALE = 2.0
"""Pixels of a PNG for each unit of the chart, for sharp text on dense screens."""

Spec = dict[str, Any]


@cache
def script() -> str:
    """Return the JavaScript that draws specifications in a browser (vegaEmbed, vegaLite, vega); it loads nothing."""
    bundle: str = vl_convert.javascript_bundle()
    return bundle


def to_svg(spec: Spec) -> str:
    """Draw as SVG text."""
    svg: str = vl_convert.vegalite_to_svg(spec)
    return svg


def to_png(spec: Spec) -> bytes:
    """Draw as PNG on white, since a reader of Markdown may show it on any ground."""
    png: bytes = vl_convert.vegalite_to_png({**spec, "background": "white"}, scale=PNG_SCALE)
    return png


def to_html(spec: Spec, *, label: str) -> str:
    """Draw as a fragment for a page: SVG in the page's text colour, named for who cannot see it."""
    svg = to_svg(spec).replace(INK, "currentColor")
    return f'<figure role="img" aria-label="{escape(label)}">{svg}</figure>'
