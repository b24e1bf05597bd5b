"""Labels of metrics and titles of axes, in the language in use."""

from lorascope.metrics import METRICS
from lorascope.text.language import tr


def metric_label(name: str) -> str:
    """Write a metric's label: training loss."""
    return tr(METRICS[name].label)


def metric_title(name: str, *, unit: str | None = None) -> str:
    """Write a metric's label and unit, for an axis: training loss (nats/token).

    Args:
        name: in ``METRICS``.
        unit: that the values are converted to, already translated; the metric's own by default.
    """
    known = METRICS[name].unit
    unit = tr(known) if unit is None and known else unit
    return f"{metric_label(name)} ({unit})" if unit else metric_label(name)
