"""What grows with the size of the work: seconds for each token, and memory."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from jobs import Result
from lorascope.units import format_bytes

_ADAPTER_BYTES = 16
"""Float32 weights, gradients and AdamW's two averages of one parameter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One case."""

    name: str
    tokens: int
    """Of the steps that are counted: all but the first, or the first where there is no other."""
    token_seconds: float
    bound_token_seconds: float | None
    """What the matrix products of a step need for each of its tokens; None where it was not measured."""
    peak_rss_bytes: int
    training_bytes: int
    """The peak less what the process held just before the training."""
    adapter_bytes: int


def measured(name: str, result: Result) -> Measured:
    """Bring one result to the measures of growth."""
    first = min(1, len(result.step_seconds) - 1)
    tokens = sum(result.step_tokens[first:])
    bounds = [share.bound_seconds / result.step_tokens[share.step - 1] for share in result.shares]
    return Measured(
        name=name,
        tokens=tokens,
        token_seconds=sum(result.step_seconds[first:]) / tokens,
        bound_token_seconds=statistics.median(bounds) if bounds else None,
        peak_rss_bytes=result.peak_rss_bytes,
        training_bytes=result.peak_rss_bytes - result.before_rss_bytes,
        adapter_bytes=_ADAPTER_BYTES * result.trainable_parameters,
    )


def growth_table(title: str, cases: Sequence[Measured]) -> Table:
    """Show each case beside the first of its group, its memory beside that of the case before it."""
    table = Table(title=title)
    for head in (
        "case",
        "tokens",
        "ms/token",
        "of the first",
        "of the first's bound",
        "peak memory",
        "of the training",
    ):
        table.add_column(head, justify="left" if head == "case" else "right")
    table.add_column("growth / adapters' bytes", justify="right")
    first = cases[0]
    for before, case in zip([first, *cases], cases, strict=False):
        grown, adapters = case.peak_rss_bytes - before.peak_rss_bytes, case.adapter_bytes - before.adapter_bytes
        bound = first.bound_token_seconds
        table.add_row(
            case.name,
            f"{case.tokens:,}",
            f"{1000 * case.token_seconds:.3f}",
            f"{case.token_seconds / first.token_seconds:.2f}",
            f"{case.token_seconds / bound:.2f}" if bound else "",
            format_bytes(case.peak_rss_bytes),
            format_bytes(case.training_bytes),
            f"{grown / adapters:.2f}" if adapters else "",
        )
    return table
