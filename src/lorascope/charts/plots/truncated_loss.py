"""Held-out loss of the largest rank's adapter, truncated to smaller ranks by SVD."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lorascope.analysis import StudyData, StudySummary
from lorascope.charts.chart import Chart
from lorascope.charts.vega import Spec, color_of_rank, finish
from lorascope.text.language import tr
from lorascope.text.metrics import metric_title


@dataclass(frozen=True, kw_only=True, slots=True)
class TruncationCurve:
    """Held-out loss of one adapter truncated to smaller ranks, and of adapters trained at such ranks."""

    top: int
    """Rank of the truncated adapter; the last point of the curve is the whole adapter."""
    cuts: tuple[tuple[int, float], ...]
    """(rank, nats a token), ascending."""
    trained: tuple[tuple[int, float], ...]
    """The same for adapters trained at a rank."""


def charts(study: StudyData, summary: StudySummary) -> Iterator[Chart]:
    """Make the chart where an adapter was truncated."""
    curve = truncation_curve(summary)
    if curve is not None:
        yield Chart(
            name="truncated_loss",
            section="truncation",
            title=tr("Rank {rank} truncated after training", rank=curve.top),
            caption=tr(
                "Line: the adapter of rank {rank} truncated to smaller ranks after training. "
                "Diamonds: adapters trained at their rank.",
                rank=curve.top,
            ),
            spec=truncation_spec(curve, study.ranks),
        )


def truncation_curve(summary: StudySummary) -> TruncationCurve | None:
    """Take the truncation curve; None where no adapter was truncated."""
    part = summary.truncation
    if part is None or not part.cuts:
        return None
    cuts = [(cut.rank, cut.eval_loss) for cut in part.cuts] + [(part.rank, part.eval_loss)]
    trained = [(cut.rank, cut.trained_eval_loss) for cut in part.cuts] + [(part.rank, part.eval_loss)]
    return TruncationCurve(
        top=part.rank,
        cuts=tuple((rank, loss) for rank, loss in cuts if loss is not None),
        trained=tuple((rank, loss) for rank, loss in trained if loss is not None),
    )


def truncation_spec(data: TruncationCurve, ranks: Sequence[int]) -> Spec:
    """Draw the cuts as a line in the colour of their rank, and the trained ranks as diamonds in theirs."""
    top = str(data.top)
    cuts = [{"rank": top, "at": rank, "loss": loss} for rank, loss in data.cuts]
    trained = [{"rank": str(rank), "at": rank, "loss": loss} for rank, loss in data.trained]
    places = sorted({rank for rank, _ in (*data.cuts, *data.trained)})
    x = {
        "field": "at", "type": "quantitative", "title": metric_title("rank"),
        "scale": {"type": "log", "base": 2, "nice": False}, "axis": {"values": places, "format": "d", "grid": False},
    }  # fmt: skip
    y = {"field": "loss", "type": "quantitative", "title": metric_title("eval_loss"), "scale": {"zero": False}}
    tips = [
        {"field": "at", "type": "quantitative", "title": metric_title("rank")},
        {"field": "loss", "type": "quantitative", "format": ".4f", "title": metric_title("eval_loss")},
    ]
    encoding = {"x": x, "y": y, "color": color_of_rank(ranks), "tooltip": tips}
    line = {"type": "line", "strokeWidth": 2, "point": {"size": 40}}
    diamonds = {"type": "point", "shape": "diamond", "size": 110, "filled": True, "opacity": 1}
    marks = ((cuts, line), (trained, diamonds))
    return finish([{"data": {"values": rows}, "mark": mark, "encoding": encoding} for rows, mark in marks])
