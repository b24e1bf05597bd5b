"""Colours and dashes of ranks, the same in every chart, table and page."""

from collections.abc import Sequence

# Dark violet to amber by rising lightness, so that the order survives colour blindness and grey print, and every one
# keeps a contrast of 3:1 on white as on the dark page (relative luminance between 0.1 and 0.3 at the ends).
_ANCHORS = ((0x6A, 0x4C, 0xC8), (0x1F, 0x7F, 0xC9), (0x0F, 0x95, 0x86), (0xC0, 0x7A, 0x00))


def rank_colors(ranks: Sequence[int]) -> dict[int, str]:
    """Map each rank to a colour ``#rrggbb``, spread over the scale in ascending order."""
    ordered = sorted(set(ranks))
    last = max(len(ordered) - 1, 1)
    return {rank: _color(position / last) for position, rank in enumerate(ordered)}


def _color(place: float) -> str:
    scaled = place * (len(_ANCHORS) - 1)
    left = min(int(scaled), len(_ANCHORS) - 2)
    share = scaled - left
    mixed = (round(a + (b - a) * share) for a, b in zip(_ANCHORS[left], _ANCHORS[left + 1], strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


_DASHES = ([1, 0], [7, 3], [2, 2], [9, 3, 2, 3], [4, 2], [12, 4], [2, 4], [9, 2, 2, 2, 2, 2])


def rank_dash(ranks: Sequence[int]) -> dict[int, list[int]]:
    """Map each rank to a dash pattern, for print without colour."""
    return {rank: _DASHES[position % len(_DASHES)] for position, rank in enumerate(sorted(set(ranks)))}
