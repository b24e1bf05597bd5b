"""Intervals drawn in the cells of a table, as inline SVG that needs no script."""

from collections.abc import Mapping

from markupsafe import Markup

from lorascope.analysis.summary import StudySummary

WIDTH, HEIGHT = 132, 16
_MARGIN = 5


def draw_intervals(summary: StudySummary, colors: Mapping[int, str]) -> dict[int, Markup]:
    """Draw each rank's difference to the best with its interval, on one scale, over the band of the tolerance.

    The numbers stand beside the drawing, so that it is hidden from readers who hear the page.
    """
    compared = [part for part in summary.ranks if part.excess_loss is not None and part.excess_loss_ci95 is not None]
    if len(compared) < 2:
        return {}
    tolerance = summary.study.tolerance
    ends = [end for part in compared for end in part.excess_loss_ci95 or ()]
    low, high = min(0.0, *ends), max(tolerance, *ends)

    def x(value: float) -> float:
        return round(_MARGIN + (WIDTH - 2 * _MARGIN) * (value - low) / (high - low), 1)

    band = f'<rect class="band" x="{x(0)}" width="{max(1.0, round(x(tolerance) - x(0), 1))}" height="{HEIGHT}"/>'
    zero = f'<line class="zero" x1="{x(0)}" x2="{x(0)}" y1="0" y2="{HEIGHT}"/>'
    drawn = {}
    for part in compared:
        assert part.excess_loss is not None
        assert part.excess_loss_ci95 is not None
        left, right = part.excess_loss_ci95
        middle = HEIGHT // 2
        marks = (
            f'<line stroke="{colors[part.rank]}" stroke-width="3" x1="{x(left)}" x2="{x(right)}" y1="{middle}" '
            f'y2="{middle}"/><circle fill="{colors[part.rank]}" cx="{x(part.excess_loss)}" cy="{middle}" r="4"/>'
        )
        drawn[part.rank] = Markup(  # noqa: S704 - made of numbers alone
            f'<svg class="interval-drawn" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
            f'aria-hidden="true">{band}{zero}{marks}</svg>'
        )
    return drawn
