"""Where direct labels stand so that none covers another."""

from collections.abc import Sequence


def spread(values: Sequence[float], low: float, high: float, gap: float) -> tuple[float, ...]:
    """Move values apart until they lie ``gap`` from each other, in their order and within ``low`` to ``high``.

    Where there is no room for the gap, it shrinks.
    """
    if not values:
        return ()
    gap = min(gap, (high - low) / max(len(values) - 1, 1))
    order = sorted(range(len(values)), key=lambda place: values[place])
    placed: list[float] = []
    for place in order:
        lowest = placed[-1] + gap if placed else low
        placed.append(max(min(values[place], high), lowest))
    ceiling = high
    for index in reversed(range(len(placed))):
        placed[index] = min(placed[index], ceiling)
        ceiling = placed[index] - gap
    result = [0.0] * len(values)
    for place, value in zip(order, placed, strict=True):
        result[place] = value
    return tuple(result)
