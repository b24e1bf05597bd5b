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


METRICS: dict[str, Metric] = {
    "train_loss": Metric("training loss", "nats/token"),
    "eval_loss": Metric("held-out loss", "nats/token"),
    "excess_loss": Metric("excess over the best rank", "nats/token"),
    "gain_per_doubling": Metric("gain for a doubling", "nats/token per doubling"),
    "forgetting": Metric("change on the generic text", "nats/token"),
    "rank": Metric("rank"),
    "step": Metric("step"),
    "learning_rate": Metric("learning rate"),
    "effective_rank": Metric("effective rank"),
    "step_seconds": Metric("time of a step", "s"),
    "runtime_seconds": Metric("runtime", "s"),
    "memory": Metric("memory", "MB"),
    "peak_memory_bytes": Metric("peak memory", "bytes"),
}
