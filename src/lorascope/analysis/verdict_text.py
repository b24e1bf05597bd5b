"""The sentences of a verdict, each with its numbers."""

from collections.abc import Mapping, Sequence

from lorascope.analysis.claims import Claims
from lorascope.analysis.ranks import Comparison
from lorascope.analysis.summary import NoiseFloorPart
from lorascope.analysis.wording import UNIT, chance, nats, ranks, uncapital, with_interval

FEW_DEGREES = 20
"""Below this a t interval is noticeably wider than it would be with a known variance (2.09 against 1.96)."""


def single_text(comparison: Comparison) -> str:
    """Say that one rank has nothing beside it."""
    return f"Only rank {comparison.best} has a held-out loss, so there is nothing to compare it with."


def few_text(comparison: Comparison, rows: int, least: int) -> str:
    """Say that steps or rows are too few for any verdict."""
    return f"Too short to tell: {comparison.step} steps, {rows} held-out rows; a verdict needs {least} of each."


def still_falling_text(comparison: Comparison) -> str:
    """Say that training had not come to its end."""
    return (
        f"Too short to tell: the held-out loss of rank {comparison.best}, the lowest so far, still falls as fast "
        "as over the whole run. Train for more steps."
    )


def equivalent_text(tests: Mapping[int, Claims], tolerance: float) -> str:
    """Say that all ranks are shown to be equal within the tolerance, and none to be worse."""
    names = list(tests)
    weakest = max(found.adequate for found in tests.values())
    return (
        f"No measurable difference between ranks {names[0]} to {names[-1]}: each is shown to be within {tolerance:g} "
        f"{UNIT} of every other ({chance(weakest)}), and none to be worse than another. "
        f"The smallest, rank {names[0]}, is enough."
    )


def unsettled_text(comparison: Comparison, unsettled: Sequence[int], enough: Sequence[int], tolerance: float) -> str:
    """Say which ranks could be the smallest adequate one, and what would settle it."""
    known = f" Rank {min(enough)} is the smallest rank shown to be enough." if enough else ""
    return (
        f"Too little data to tell whether {ranks(unsettled)} {'is' if len(unsettled) == 1 else 'are'} enough, that is "
        f"within {tolerance:g} {UNIT} of the lowest loss.{known} {_remedy(comparison)}"
    )


def adequate_text(comparison: Comparison, tests: Mapping[int, Claims], smallest: int, tolerance: float) -> str:
    """Name the smallest adequate rank, and what is known of the smaller ones."""
    excess = comparison.excess[smallest]
    shown = chance(tests[smallest].adequate)
    if smallest == comparison.best:
        parts = [f"Rank {smallest} is the smallest adequate rank ({shown}); its held-out loss is the lowest of all."]
    else:
        parts = [
            f"Rank {smallest} is enough ({shown}): its held-out loss exceeds that of rank {comparison.best}, the "
            f"lowest, by at most {nats(excess.high)} {UNIT} (upper end of the 95% interval; tolerance {tolerance:g})."
        ]
    if tests[smallest].is_worse:
        parts.append(f"That it is above another rank at all is shown too, {with_interval(excess)}.")
    worse = [rank for rank in comparison.excess if rank < smallest]
    if worse:
        closest = min(worse, key=lambda rank: comparison.excess[rank].value)
        subject = f"Rank {closest}" if len(worse) == 1 else f"Of the smaller ranks, {closest} comes closest: it"
        parts.append(f"{subject} exceeds the lowest by {with_interval(comparison.excess[closest])}.")
    unsure = [rank for rank in worse if not tests[rank].is_inadequate]
    if unsure:
        parts.append(f"That {ranks(unsure)} {'is' if len(unsure) == 1 else 'are'} not enough is likely, but not shown.")
    return " ".join(parts)


def in_scope(text: str, seeds: Sequence[int]) -> str:
    """Say what a verdict speaks for: rows and seeds, or the rows of one seed."""
    if len(seeds) > 1:
        return f"{text} The intervals cover the choice of held-out rows and of seeds ({len(seeds)} seeds)."
    return (
        f"In seed {seeds[0]} alone, {uncapital(text)} The intervals cover the choice of held-out rows, not of seeds: "
        "ranks may stand otherwise in another. A second seed would show how far a difference moves from one to the "
        "next, and each further one makes its interval narrower."
    )


def noise_text(noise: NoiseFloorPart) -> str:
    """Say how far apart two seeds of one rank end."""
    pairs = "1 pair" if noise.pairs == 1 else f"{noise.pairs} pairs"
    return (
        f"Noise floor: two seeds of the same rank end {nats(noise.typical)} {UNIT} apart (root mean square of {pairs})."
    )


def _remedy(comparison: Comparison) -> str:
    """Ask for seeds where they limit the differences, which then have few degrees of freedom; else for rows."""
    fewest = min(found.degrees for found in comparison.differences.values())
    return "Run more seeds." if fewest < FEW_DEGREES else "Hold out more rows, or train for more steps."
