"""Layout of direct labels without overlaps."""

from collections.abc import Sequence


def spread(values: Sequence[float], low: float, high: float, gap: float) -> tuple[float, ...]:
    """Move values at least ``gap`` apart, in their order and within ``low`` to ``high``.

    Values that are too close form a group centred on their mean. The gap shrinks where they would not fit.
    """
    gap = min(gap, (high - low) / max(len(values) - 1, 1))
    order = sorted(range(len(values)), key=lambda place: values[place])
    groups: list[list[float]] = []
    for place in order:
        groups.append([values[place]])
        while len(groups) > 1 and _begin(groups[-1], low, high, gap) < _end(groups[-2], low, high, gap) + gap:
            groups[-2:] = [[*groups[-2], *groups[-1]]]
    placed = [_begin(group, low, high, gap) + gap * number for group in groups for number in range(len(group))]
    found = dict(zip(order, placed, strict=True))
    return tuple(found[place] for place in range(len(values)))


def _begin(group: Sequence[float], low: float, high: float, gap: float) -> float:
    length = gap * (len(group) - 1)
    return max(low, min(sum(group) / len(group) - length / 2, high - length))


def _end(group: Sequence[float], low: float, high: float, gap: float) -> float:
    return _begin(group, low, high, gap) + gap * (len(group) - 1)
