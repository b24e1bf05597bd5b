"""Holm's correction for multiple tests."""

from collections.abc import Sequence


def holm(chances: Sequence[float], *, least: int = 1) -> list[float]:
    """Correct p-values so that the chance of any false rejection stays below the level they are held against.

    The smallest is multiplied by their number, the next by one less, and so on down to ``least``; none may come out
    below one before it. Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    corrected = [0.0] * len(chances)
    highest = 0.0
    for done, place in enumerate(sorted(range(len(chances)), key=lambda place: chances[place])):
        highest = max(highest, chances[place] * max(len(chances) - done, least))
        corrected[place] = min(1.0, highest)
    return corrected
