"""A study's data sets: one or several, whole or in shares, from their start where they are streamed."""

from collections.abc import Sequence
from dataclasses import replace

from lorascope.data.sources.load import DEFAULT_CONFIG, load_rows, stream_rows
from lorascope.data.sources.rows import Rows
from lorascope.data.split import choose_rows
from lorascope.message import Message
from lorascope.spec.schema import StudySpec


def load_data_sets(spec: StudySpec, split: str | tuple[str, ...], *, mixed: bool) -> tuple[Rows, ...]:
    """Load a split of each of the study's data sets.

    Args:
        spec: the study.
        split: in the syntax of ``datasets``, one for all or one for each.
        mixed: apply ``mix`` and ``max_rows``, as for training rows; what is streamed is limited in any case.

    Raises:
        InputError: a data set or its split does not exist, or has no rows.
    """
    names, weights = spec.dataset_names, spec.mix if mixed else None
    splits, configs = spec.for_each(split), spec.for_each(spec.dataset_config or DEFAULT_CONFIG)
    if spec.streaming:
        assert spec.max_rows is not None
        even = weights or (1.0,) * len(names)
        limits = [max(1, round(spec.max_rows * weight / sum(even))) for weight in even]
        loaded = tuple(map(stream_rows, names, splits, limits, configs))
    else:
        loaded = tuple(map(load_rows, names, splits, configs))
    taken = shares([len(rows) for rows in loaded], weights, spec.max_rows if mixed else None)
    return tuple(_take(rows, count, spec, several=len(names) > 1) for rows, count in zip(loaded, taken, strict=True))


def _take(rows: Rows, count: int, spec: StudySpec, *, several: bool) -> Rows:
    size = len(rows)
    if several or count < size:
        note = Message("rows.part", name=rows.name, count=count, size=size)
        rows = replace(rows, notes=(note, *rows.notes))
    return rows if count == size else rows.select(choose_rows(size, n_chosen=count, seed=spec.split_seed))


def shares(sizes: Sequence[int], weights: Sequence[float] | None, most: int | None) -> tuple[int, ...]:
    """Return how many rows each data set gives: as many as keep the weights, ``most`` in all, and one at least.

    Without weights all give all of their rows, or an equal part of them.
    """
    whole = sum(weights or sizes)
    parts = [weight / whole for weight in weights or sizes]
    total = min(size / part for size, part in zip(sizes, parts, strict=True))
    total = total if most is None else min(total, most)
    return tuple(max(1, min(size, int(total * part + 1e-6))) for size, part in zip(sizes, parts, strict=True))
