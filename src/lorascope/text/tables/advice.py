"""The recommendation as it is read: one sentence, and a line for each need."""

from collections.abc import Sequence
from dataclasses import dataclass

from lorascope.analysis.summary import StudySummary
from lorascope.analysis.verdict.schema import AdviceSection
from lorascope.text.language import tr
from lorascope.text.say import say


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """What one need names."""

    title: str
    rank: int | None
    reason: str
    badge: str
    """How sure it is that the rank's loss is within the tolerance of the lowest; empty where nothing says."""


def headline(summary: StudySummary) -> str:
    """State the rank to use and why, or why there is none."""
    use = summary.recommendation.use
    if use.rank is None:
        return say(use.reason)
    if summary.verdict.kind == "too_short":
        return tr("Undecided. For now use rank {rank} ({badge}): {reason}.", **_values(use))
    if use.evidence is None:
        return tr("Use rank {rank}: {reason}.", **_values(use))
    return tr("Use rank {rank} ({badge}): {reason}.", **_values(use))


def needs(summary: StudySummary) -> Sequence[Need]:
    """Return the need of the lowest loss, of the best value, of time and of memory."""
    advice = summary.recommendation
    titled = (
        (tr("Lowest loss"), advice.loss),
        (tr("Best value"), advice.value),
        (tr("Fastest"), advice.time),
        (tr("Least memory"), advice.memory),
    )
    return [Need(title=title, rank=found.rank, reason=say(found.reason), badge=badge(found)) for title, found in titled]


def badge(advice: AdviceSection) -> str:
    """Name the evidence, with its probability where nothing is proven."""
    words = {"proven": tr("proven"), "likely": tr("likely"), "unproven": tr("unproven")}
    if advice.evidence is None:
        return ""
    word = words[advice.evidence]
    return word if advice.evidence == "proven" or advice.chance is None else f"{word}, {advice.chance:.0%}"


def _values(advice: AdviceSection) -> dict[str, object]:
    return {"rank": advice.rank, "badge": badge(advice), "reason": say(advice.reason)}
