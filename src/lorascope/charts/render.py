"""Render specifications to SVG and PNG, without a browser or the network."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

import vl_convert

from lorascope.charts.vega import INK, Spec

_ROLES = re.compile(r' (?:role|aria-[a-z]+)="[^"]*"(?=[^<>]*>)')
PNG_SCALE = 2.0
"""Pixels of a PNG for each unit of the chart, for sharp text on dense screens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderedChart:
    """One chart as SVG and PNG."""

    svg: str
    png: bytes


def render_charts(specs: Mapping[str, Spec]) -> dict[str, RenderedChart]:
    """Render specifications, by name."""
    svgs = {name: to_svg(spec) for name, spec in specs.items()}
    return {name: RenderedChart(svg=svg, png=svg_to_png(svg)) for name, svg in svgs.items()}


def to_svg(spec: Spec) -> str:
    """Render as SVG text."""
    svg: str = vl_convert.vegalite_to_svg(spec)
    return svg


def svg_to_png(svg: str) -> bytes:
    """Render an SVG of ``to_svg`` as PNG on white, as Markdown viewers have backgrounds of any colour."""
    head, end, body = svg.partition(">")
    png: bytes = vl_convert.svg_to_png(f'{head}{end}<rect width="100%" height="100%" fill="white"/>{body}', PNG_SCALE)
    return png


def svg_to_html(svg: str, *, label: str) -> str:
    """Wrap an SVG of ``to_svg`` in an HTML figure with alternative text; axes and text take the page's colour."""
    drawn = _ROLES.sub("", svg.replace(INK, "currentColor"))  # of single marks, which the figure's label speaks for
    return f'<figure role="img" aria-label="{escape(label)}">{drawn}</figure>'
