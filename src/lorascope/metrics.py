"""Metrics that label axes and columns: English label and unit of each.

``docs/numbers.md`` defines each under the same name; ``lorascope.text.metrics`` writes them in the language in use.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """Label and unit of one kind of number, in English."""

    label: str
    unit: str = ""
    """Empty for a count or a ratio."""
    per_row: bool = False
    """True for a mean over held-out rows: the summary has NAME and its interval NAME_ci95 for each rank, and the table
    of ranks and a chart show them."""


METRICS: dict[str, Metric] = {
    "train_loss": Metric("training loss", "nats/token"),
    "eval_loss": Metric("held-out loss", "nats/token", per_row=True),
    "token_accuracy": Metric("token accuracy", per_row=True),
    "excess_loss": Metric("excess over the best rank", "nats/token"),
    "gain_per_doubling": Metric("gain for a doubling", "nats/token per doubling"),
    "forgetting": Metric("change on the generic text", "nats/token"),
    "rank": Metric("rank"),
    "step": Metric("step"),
    "grad_norm": Metric("gradient norm", "nats/token per unit of weight"),
    "learning_rate": Metric("learning rate"),
    "effective_rank": Metric("effective rank"),
    "step_seconds": Metric("time of a step", "s"),
    "runtime_seconds": Metric("runtime", "s"),
    "memory": Metric("memory", "MB"),
    "peak_memory_bytes": Metric("peak memory", "bytes"),
}

ROW_METRICS = tuple(name for name, metric in METRICS.items() if metric.per_row)
