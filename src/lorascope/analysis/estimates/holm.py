"""Holm's correction for multiple tests."""

from collections.abc import Sequence


def holm(chances: Sequence[float], *, most_true: int | None = None) -> list[float]:
    """Correct p-values so that the chance of any false rejection stays below the level they are held against.

    The smallest is multiplied by their number, the next by one less, and so on; none may come out below one before it.
    Holm, Scandinavian Journal of Statistics 6 (1979). Where at most ``most_true`` of the hypotheses can be true at the
    same time, no factor is larger (Shaffer, JASA 81, 1986).
    """
    most = len(chances) if most_true is None else most_true
    corrected = [0.0] * len(chances)
    highest = 0.0
    for done, place in enumerate(sorted(range(len(chances)), key=lambda place: chances[place])):
        highest = max(highest, chances[place] * min(len(chances) - done, most))
        corrected[place] = min(1.0, highest)
    return corrected
