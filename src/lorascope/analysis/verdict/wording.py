"""The sentences of a verdict, each with its numbers."""

from collections.abc import Mapping, Sequence

from lorascope.analysis.estimates.ranks import Comparison
from lorascope.analysis.summary import NoiseFloorSection
from lorascope.analysis.verdict.claims import Claims
from lorascope.text.language import tr, trn
from lorascope.text.numbers import chance, interval, lower_first, nats, ranks

FEW_DEGREES = 20
"""Below this a t interval is noticeably wider than it would be with a known variance (2.09 against 1.96)."""


def single_text(comparison: Comparison) -> str:
    """Say that one rank has nothing beside it."""
    return tr("Only rank {rank} has a held-out loss, so there is nothing to compare it with.", rank=comparison.best)


def few_text(comparison: Comparison, rows: int, least: int) -> str:
    """Say that steps or rows are too few for any verdict."""
    return tr(
        "Too short to tell: {steps} steps, {rows} held-out rows; a verdict needs {least} of each.",
        steps=comparison.step,
        rows=rows,
        least=least,
    )


def still_falling_text(comparison: Comparison) -> str:
    """Say that training had not come to its end."""
    return tr(
        "Too short to tell: the held-out loss of rank {rank}, the lowest so far, still falls as fast as over the whole "
        "run. Train for more steps.",
        rank=comparison.best,
    )


def equivalent_text(tests: Mapping[int, Claims], tolerance: float) -> str:
    """Say that all ranks are shown to be equal within the tolerance, and none to be worse."""
    names = list(tests)
    return tr(
        "No measurable difference between ranks {first} to {last}: each is shown to be within {tolerance:g} nats a "
        "token of every other ({chance}), and none to be worse than another. The smallest, rank {first}, is enough.",
        first=names[0],
        last=names[-1],
        tolerance=tolerance,
        chance=chance(max(found.adequate for found in tests.values())),
    )


def unsettled_text(comparison: Comparison, unsettled: Sequence[int], enough: Sequence[int], tolerance: float) -> str:
    """Say which ranks could be the smallest adequate one, and what would settle it."""
    parts = [
        trn(
            "Too little data to tell whether {ranks} is enough, that is within {tolerance:g} nats a token of the "
            "lowest loss.",
            "Too little data to tell whether {ranks} are enough, that is within {tolerance:g} nats a token of the "
            "lowest loss.",
            len(unsettled),
            ranks=ranks(unsettled),
            tolerance=tolerance,
        )
    ]
    if enough:
        parts.append(tr("Rank {rank} is the smallest rank shown to be enough.", rank=min(enough)))
    return " ".join([*parts, _remedy(comparison)])


def adequate_text(comparison: Comparison, tests: Mapping[int, Claims], smallest: int, tolerance: float) -> str:
    """Name the smallest adequate rank, and what is known of the smaller ones."""
    excess = comparison.excess[smallest]
    shown = chance(tests[smallest].adequate)
    if smallest == comparison.best:
        text = tr(
            "Rank {rank} is the smallest adequate rank ({chance}); its held-out loss is the lowest of all.",
            rank=smallest,
            chance=shown,
        )
    else:
        text = tr(
            "Rank {rank} is enough ({chance}): its held-out loss exceeds that of rank {best}, the lowest, by at most "
            "{high} nats a token (upper end of the 95% interval; tolerance {tolerance:g}).",
            rank=smallest,
            chance=shown,
            best=comparison.best,
            high=nats(excess.high),
            tolerance=tolerance,
        )
    parts = [text]
    if tests[smallest].is_worse:
        parts.append(
            tr(
                "That it is above another rank at all is shown too, {excess}.",
                excess=interval(excess.value, excess.low, excess.high),
            )
        )
    return " ".join([*parts, *_smaller_text(comparison, tests, smallest)])


def _smaller_text(comparison: Comparison, tests: Mapping[int, Claims], smallest: int) -> list[str]:
    """Say how far the ranks below the smallest adequate one are from it, and which of them are not settled."""
    parts = []
    worse = [rank for rank in comparison.excess if rank < smallest]
    if worse:
        closest = min(worse, key=lambda rank: comparison.excess[rank].value)
        excess = interval(
            comparison.excess[closest].value, comparison.excess[closest].low, comparison.excess[closest].high
        )
        if len(worse) == 1:
            parts.append(tr("Rank {rank} exceeds the lowest by {excess}.", rank=closest, excess=excess))
        else:
            parts.append(
                tr(
                    "Of the smaller ranks, {rank} comes closest: it exceeds the lowest by {excess}.",
                    rank=closest,
                    excess=excess,
                )
            )
    unsure = [rank for rank in worse if not tests[rank].is_inadequate]
    if unsure:
        parts.append(
            trn(
                "That {ranks} is not enough is likely, but not shown.",
                "That {ranks} are not enough is likely, but not shown.",
                len(unsure),
                ranks=ranks(unsure),
            )
        )
    return parts


def in_scope(text: str, seeds: Sequence[int]) -> str:
    """Say what a verdict speaks for: rows and seeds, or the rows of one seed."""
    if len(seeds) > 1:
        return tr(
            "{verdict} The intervals cover the choice of held-out rows and of seeds ({seeds} seeds).",
            verdict=text,
            seeds=len(seeds),
        )
    return tr(
        "In seed {seed} alone, {verdict} The intervals cover the choice of held-out rows, not of seeds: ranks may "
        "stand otherwise in another. A second seed would show how far a difference moves from one to the next, and "
        "each further one makes its interval narrower.",
        seed=seeds[0],
        verdict=lower_first(text),
    )


def so_far(text: str, step: int, total: int) -> str:
    """Say that a verdict is one of an unfinished study."""
    return tr("So far, at step {step} of {total}: {verdict}", step=step, total=total, verdict=lower_first(text))


def noise_text(noise: NoiseFloorSection) -> str:
    """Say how far apart two seeds of one rank end."""
    return trn(
        "Noise floor: two seeds of the same rank end {typical} nats a token apart (root mean square of {count} pair).",
        "Noise floor: two seeds of the same rank end {typical} nats a token apart (root mean square of {count} pairs).",
        noise.pairs,
        typical=nats(noise.typical),
    )


def _remedy(comparison: Comparison) -> str:
    """Ask for seeds where they limit the differences, which then have few degrees of freedom; else for rows."""
    fewest = min(found.degrees for found in comparison.differences.values())
    if fewest < FEW_DEGREES:
        return tr("Run more seeds.")
    return tr("Hold out more rows, or train for more steps.")
