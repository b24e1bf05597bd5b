"""From the results of several rounds to one line a program."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from jobs import ProgramName, Result

OURS: ProgramName = "lorascope"
Round = Sequence[Result]
"""The results of every program and rank, measured one after the other."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Several measurements of one thing."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """How one program did over all rounds.

    Seconds are those of all ranks, together in lorascope and one after the other in a peer. A peer trains one rank a
    round, another in each: a round's seconds are then those of its rank times the number of ranks.
    """

    program: ProgramName
    train_seconds: Spread
    process_seconds: Spread
    ratio: Spread
    """Its training seconds as a multiple of lorascope's in the same round."""
    tokens_per_second: Spread
    """Real tokens a second of training, those of every rank counted."""
    peak_rss_bytes: Spread
    """Over its processes: the high one is its largest rank's."""
    train_loss: dict[str, float]
    """By trial."""


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the range of some values."""
    return Spread(median=statistics.median(values), low=min(values), high=max(values))


def standings(rounds: Sequence[Round]) -> list[Standing]:
    """Return a line for each program, in the order of the first round."""
    return [_standing(rounds, program) for program in dict.fromkeys(result.program for result in rounds[0])]


def _standing(rounds: Sequence[Round], program: ProgramName) -> Standing:
    own, ours = ([_only(one, name) for one in rounds] for name in (program, OURS))
    times = [len(our.ranks) / len(result.ranks) for result, our in zip(own, ours, strict=True)]
    seconds = [result.train_seconds * n for result, n in zip(own, times, strict=True)]
    tokens = [result.tokens * n for result, n in zip(own, times, strict=True)]
    return Standing(
        program=program,
        train_seconds=spread(seconds),
        process_seconds=spread([result.process_seconds * n for result, n in zip(own, times, strict=True)]),
        ratio=spread([theirs / our.train_seconds for theirs, our in zip(seconds, ours, strict=True)]),
        tokens_per_second=spread([n / time for n, time in zip(tokens, seconds, strict=True)]),
        peak_rss_bytes=spread([result.peak_rss_bytes for result in own]),
        train_loss={name: loss for result in own for name, loss in result.train_loss.items()},
    )


def _only(one: Round, program: ProgramName) -> Result:
    (result,) = (result for result in one if result.program == program)
    return result


def largest_difference(one: Result, other: Result) -> float:
    """Return the largest relative difference of any step's loss of any trial between two results."""
    return max(
        abs(a - b) / abs(b)
        for name, losses in other.step_losses.items()
        for a, b in zip(one.step_losses[name], losses, strict=True)
    )
