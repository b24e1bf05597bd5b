"""Limits that a study sets on a rank's memory, training time and adapter size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lorascope.spec.schema import StudySpec
from lorascope.units import from_megabytes, parse_bytes, to_megabytes


class RankCost(Protocol):
    """A rank's cost, measured or predicted; None where it is not known."""

    @property
    def adapter_bytes(self) -> int | None:
        """Size of the parameters in the adapter's files."""

    @property
    def runtime_seconds(self) -> float | None:
        """Seconds of all training steps of the rank alone."""

    @property
    def peak_memory_bytes(self) -> int | None:
        """Peak memory of the rank alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """The most that a rank may take of one resource."""

    field: str
    """Field of the study."""
    cost: str
    """Field of ``RankCost``."""
    most: float
    """Bytes or seconds."""

    def taken(self, cost: RankCost) -> float | None:
        """Return what a rank takes; None where that is not known."""
        amount: float | None = getattr(cost, self.cost)
        return amount

    def share(self, cost: RankCost) -> float:
        """Divide what a rank takes by the limit; infinite where that is not known."""
        taken = self.taken(cost)
        return math.inf if taken is None else taken / self.most

    def exceeded(self, cost: RankCost) -> bool:
        """Return True where a rank is known to take more."""
        return 1 < self.share(cost) < math.inf

    def sufficient(self, amount: float) -> str:
        """Write a value of the field that an amount stays within."""
        if self.field == "max_memory":
            return f"{math.ceil(to_megabytes(amount))}MB"
        return sufficient_megabytes(amount) if self.field == "max_adapter_mb" else f"{math.ceil(amount)}"


def sufficient_megabytes(n_bytes: float) -> str:
    """Write a ``max_adapter_mb`` that an adapter stays within."""
    return f"{math.ceil(to_megabytes(n_bytes) * 1000) / 1000}"


def limits_of(spec: StudySpec) -> tuple[Limit, ...]:
    """Return the limits that the study sets."""
    memory = parse_bytes(spec.max_memory) if spec.max_memory is not None else None
    size = from_megabytes(spec.max_adapter_mb) if spec.max_adapter_mb is not None else None
    known = (
        ("max_memory", "peak_memory_bytes", memory),
        ("max_seconds", "runtime_seconds", spec.max_seconds),
        ("max_adapter_mb", "adapter_bytes", size),
    )
    return tuple(Limit(field=field, cost=cost, most=most) for field, cost, most in known if most is not None)


def within(limits: Sequence[Limit], cost: RankCost) -> bool:
    """Return True where a rank is known to keep every limit."""
    return worst_share(limits, cost) <= 1


def worst_share(limits: Sequence[Limit], cost: RankCost) -> float:
    """Return the largest share of a limit that a rank takes; 0 without a limit."""
    return max((limit.share(cost) for limit in limits), default=0.0)
