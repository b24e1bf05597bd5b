"""How numbers stand in sentences."""

from collections.abc import Sequence

from lorascope.analysis.estimates.losses import Estimate
from lorascope.text.language import tr


def nats(value: float) -> str:
    """Write a loss or a difference: 0.0210."""
    return f"{value:z.4f}"


def with_interval(estimate: Estimate) -> str:
    """Write a difference and its interval: 0.0210 (95% interval 0.0150 to 0.0280)."""
    return tr(
        "{value} (95% interval {low} to {high})",
        value=nats(estimate.value),
        low=nats(estimate.low),
        high=nats(estimate.high),
    )


def ranks(values: Sequence[int]) -> str:
    """Name ranks: rank 8; ranks 8 and 16; ranks 8, 16 and 32."""
    names = [str(value) for value in values]
    if len(names) == 1:
        return tr("rank {rank}", rank=names[0])
    return tr("ranks {ranks} and {last}", ranks=", ".join(names[:-1]), last=names[-1])


def chance(p: float) -> str:
    """Write a p-value: p = 0.012, p < 0.001."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def uncapital(text: str) -> str:
    """Let a sentence go on after another's beginning."""
    return text[0].lower() + text[1:]
