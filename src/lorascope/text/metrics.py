"""Labels of metrics and titles of axes, in the language in use."""

from lorascope.metrics import METRICS
from lorascope.text.language import tr


def metric_title(name: str, *, unit: str | None = None) -> str:
    """Write a metric's label and its unit, for an axis: training loss (nats/token).

    Args:
        name: in ``METRICS``.
        unit: that the values are converted to, already translated; the metric's own by default.
    """
    metric = METRICS[name]
    unit = tr(metric.unit) if unit is None and metric.unit else unit
    return f"{tr(metric.label)} ({unit})" if unit else tr(metric.label)
