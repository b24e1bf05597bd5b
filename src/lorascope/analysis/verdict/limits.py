"""The limits a user gave on memory, time and size, and the ranks within them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol

from lorascope.analysis.summary import AdviceSection, RankSection, RecommendationSection
from lorascope.spec.schema import StudySpec
from lorascope.text.language import later, tr
from lorascope.text.numbers import format_seconds, interval
from lorascope.units import format_bytes, from_megabytes, parse_bytes, to_megabytes


class Cost(Protocol):
    """What is held against limits, measured or planned; None where it is not known."""

    @property
    def adapter_bytes(self) -> int | None:
        """Of the adapter's file."""

    @property
    def runtime_seconds(self) -> float | None:
        """Of all training steps, alone."""

    @property
    def peak_memory_bytes(self) -> int | None:
        """Of the rank alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """One limit and what it limits."""

    field: str
    """Field of the study."""
    label: str
    """In English."""
    most: float
    taken: Callable[[Cost], float | None]
    shown: Callable[[float], str]
    enough: Callable[[float], str]
    """Writes a limit that the user can give and that an amount stays within."""

    def share(self, part: Cost) -> float:
        """Divide what the rank takes by the limit; infinite where that is not known."""
        taken = self.taken(part)
        return math.inf if taken is None else taken / self.most

    def exceeded(self, part: Cost) -> bool:
        """Say whether the rank is known to take more."""
        return 1 < self.share(part) < math.inf

    def describe(self, part: Cost) -> str:
        """Write what the rank takes and the limit."""
        taken = self.taken(part)
        label, most = tr(self.label), self.shown(self.most)
        if taken is None:
            return tr("{label} not measured (limit {most})", label=label, most=most)
        return tr("{label} {amount} (limit {most})", label=label, amount=self.shown(taken), most=most)


def limits_of(spec: StudySpec) -> tuple[Limit, ...]:
    """List the limits that were given."""
    memory = parse_bytes(spec.max_memory) if spec.max_memory is not None else None
    size = from_megabytes(spec.max_adapter_mb) if spec.max_adapter_mb is not None else None
    known = (
        ("max_memory", later("peak memory"), memory, "peak_memory_bytes", format_bytes, _enough_memory),
        ("max_seconds", later("training alone"), spec.max_seconds, "runtime_seconds", format_seconds, _enough_seconds),
        ("max_adapter_mb", later("adapter"), size, "adapter_bytes", format_bytes, enough_megabytes),
    )
    return tuple(
        Limit(field=field, label=label, most=most, taken=attrgetter(name), shown=shown, enough=enough)
        for field, label, most, name, shown, enough in known
        if most is not None
    )


def nearest_text(limits: Sequence[Limit], parts: Sequence[RankSection]) -> str:
    """Say that no rank is within all limits, and which comes nearest."""
    nearest = min(parts, key=lambda part: _worst(limits, part))
    over = [limit.describe(nearest) for limit in limits if limit.share(nearest) > 1]
    return tr(
        "no rank is within the limits; rank {rank} comes nearest: {over}", rank=nearest.rank, over=", ".join(over)
    )


def remedy_text(limits: Sequence[Limit], parts: Sequence[RankSection]) -> str:
    """Say how far the limits would have to be raised for the nearest rank."""
    nearest = min(parts, key=lambda part: _worst(limits, part))
    raised = " and ".join(
        f"{limit.field} to {limit.enough(taken)}"
        for limit in limits
        if limit.exceeded(nearest) and (taken := limit.taken(nearest)) is not None
    )
    return f"raise {raised} and run the same command, or ask for smaller ranks in a new folder"


def within(limits: Sequence[Limit], part: RankSection) -> bool:
    """Say whether a rank keeps every limit."""
    return _worst(limits, part) <= 1


def recommend_within(
    limits: Sequence[Limit],
    ranks: Mapping[int, RankSection],
    free: RecommendationSection,
    advise: Callable[[Sequence[int]], RecommendationSection],
) -> RecommendationSection:
    """Recommend among the ranks within the limits; the constrained choice is the efficient one among them.

    Args:
        limits: at least one.
        ranks: ranks that can be recommended at all.
        free: the recommendation without limits.
        advise: recommends among some of the ranks.
    """
    allowed = [rank for rank, part in ranks.items() if within(limits, part)]
    if not allowed:
        text = nearest_text(limits, list(ranks.values()))
        left = AdviceSection(rank=None, reason=text[0].upper() + text[1:], change=_change(limits, ranks, free))
        return RecommendationSection(quality=left, efficient=left, constrained=left)
    advice = free if len(allowed) == len(ranks) else advise(allowed)
    quality, efficient = (_among(part, len(allowed), len(ranks)) for part in (advice.quality, advice.efficient))
    constrained = efficient
    if efficient.rank is not None:
        chosen = ranks[efficient.rank]
        reasons = (efficient.reason, *_price(chosen), *(limit.describe(chosen) for limit in limits))
        change = " ".join(filter(None, (efficient.change, _change(limits, ranks, free))))
        constrained = AdviceSection(rank=chosen.rank, reason="; ".join(reasons), change=change)
    return RecommendationSection(quality=quality, efficient=efficient, constrained=constrained)


def _among(advice: AdviceSection, allowed: int, total: int) -> AdviceSection:
    """Say of how many ranks this one was chosen; of a single one there is nothing else to say."""
    if allowed == total:
        return advice
    if allowed == 1:
        reason = tr("the only rank within the limits")
    else:
        reason = tr("of {count} ranks within the limits: {reason}", count=allowed, reason=advice.reason)
    return advice.model_copy(update={"reason": reason})


def _price(part: RankSection) -> tuple[str, ...]:
    """Write what the rank gives up against the lowest loss of all ranks, whatever their cost."""
    if not part.excess_loss or part.excess_loss_ci95 is None:
        return ()
    low, high = part.excess_loss_ci95
    above = interval(part.excess_loss, low, high)
    return (tr("its held-out loss is {excess} above the lowest of all ranks", excess=above),)


def _change(limits: Sequence[Limit], ranks: Mapping[int, RankSection], free: RecommendationSection) -> str:
    """Say what the ranks beyond the limits would need."""
    beyond = {
        rank: ", ".join(limit.describe(part) for limit in limits if limit.share(part) > 1)
        for rank, part in ranks.items()
        if not within(limits, part)
    }
    if not beyond:
        return tr("Every rank is within the limits.")
    needs = "; ".join(tr("rank {rank} by its {what}", rank=rank, what=what) for rank, what in beyond.items())
    text = tr("Beyond the limits: {needs}.", needs=needs)
    if not free.efficient.rank:
        return text
    without = tr("Without limits the efficient choice is rank {rank}.", rank=free.efficient.rank)
    return f"{text} {without}"


def enough_megabytes(n_bytes: float) -> str:
    """Write MB that this many bytes stay within."""
    return f"{math.ceil(to_megabytes(n_bytes) * 1000) / 1000}"


def _enough_memory(n_bytes: float) -> str:
    return f"{math.ceil(to_megabytes(n_bytes))}MB"


def _enough_seconds(seconds: float) -> str:
    return f"{math.ceil(seconds)}"


def _worst(limits: Sequence[Limit], part: RankSection) -> float:
    return max(limit.share(part) for limit in limits)
