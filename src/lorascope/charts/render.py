"""From a specification to a picture, without a browser and without the network."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

import vl_convert

from lorascope.charts.vega import INK, Spec
from lorascope.charts.vega_bundle import script

__all__ = ["Drawing", "draw_all", "script", "svg_to_html", "svg_to_png", "to_html", "to_png", "to_svg"]

PNG_SCALE = 2.0
"""Pixels of a PNG for each unit of the chart, for sharp text on dense screens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """One chart, drawn."""

    svg: str
    png: bytes


def draw_all(specs: Mapping[str, Spec]) -> dict[str, Drawing]:
    """Draw specifications, by name."""
    svgs = {name: to_svg(spec) for name, spec in specs.items()}
    return {name: Drawing(svg=svg, png=svg_to_png(svg)) for name, svg in svgs.items()}


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
