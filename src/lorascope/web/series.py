"""Thinned series: losses and memory over time as few points, read incrementally."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from lorascope.charts.downsample import keep_peaks
from lorascope.records import EvalRecord
from lorascope.store.live import Bucket, LiveStore
from lorascope.web.snapshot import Snapshot

MAX_POINTS = 200
"""Points of one line. Each has a lowest and a highest value, so these are as many as its chart has pixels."""
MEMORY_COLUMNS = ("rss_bytes", "device_allocated_bytes")

Line = Sequence[Bucket]
Series = Mapping[str, Mapping[str, Line]]
"""Lines by chart ("train", "eval", "memory") and by trial id or column."""


def bucket_size(last: int) -> int:
    """Return the smallest power of two that splits positions 0 to ``last`` into at most ``MAX_POINTS`` buckets."""
    return 1 << (last // MAX_POINTS).bit_length()


class LineReader:
    """Read one line again and again while it grows.

    Bucket n holds the positions from n * size on, so only the last bucket changes until the size does.
    """

    def __init__(self) -> None:
        self.buckets: Line = []
        self._last = -1
        self._size = 0

    def invalidate(self) -> None:
        """Read everything again when the line next changes."""
        self._size = 0

    def update(self, last: int, size: int, read: Callable[[int, int], Line]) -> Line:
        """Return the line up to position ``last``. ``read(after, size)`` returns the buckets after a position."""
        if last != self._last:
            if size != self._size or last < self._last:
                self.buckets = []
            begin = self.buckets[-1].position // size * size if self.buckets else 0
            self.buckets = [*self.buckets[:-1], *read(begin - 1, size)]
            self._last, self._size = last, size
        return self.buckets


class SeriesReader:
    """Read all series of one study again and again while they grow."""

    def __init__(self) -> None:
        self._lines: defaultdict[tuple[str, str], LineReader] = defaultdict(LineReader)
        self._starts = 0

    def read(self, store: LiveStore, snapshot: Snapshot) -> Series:
        """Read what is new; call it in the ``read_transaction`` of the snapshot."""
        if snapshot.starts != self._starts:
            # A run that continues deletes the steps after its checkpoint and writes them again.
            for line in self._lines.values():
                line.invalidate()
            self._starts = snapshot.starts
        train, evals = {}, {}
        for trial in snapshot.trials:
            name, last = trial.trial.trial_id, store.last_step(trial.trial.trial_id)
            train[name] = self._lines["train", name].update(last, bucket_size(last), partial(store.step_buckets, name))
            last = trial.evaluation.step if trial.evaluation else -1
            evals[name] = _thin(self._lines["eval", name].update(last, 1, partial(_read_evaluations, store, name)))
        last = store.last_sample_number()
        memory = {
            column: self._lines["memory", column].update(last, bucket_size(last), partial(store.sample_buckets, column))
            for column in MEMORY_COLUMNS
        }
        return {"train": train, "eval": evals, "memory": memory}


def recent_mean(line: Line) -> float | None:
    """Return the weighted mean over the last tenth of a line; None without points."""
    recent = line[-max(1, len(line) // 10) :]
    return sum(bucket.total for bucket in recent) / sum(bucket.weight for bucket in recent) if recent else None


def _read_evaluations(store: LiveStore, trial_id: str, after: int, _size: int) -> Line:
    return [bucket for record in store.evaluations_after(trial_id, after) if (bucket := _bucket(record)) is not None]


def _bucket(record: EvalRecord) -> Bucket | None:
    loss, weight = record.loss, sum(record.example_target_tokens)
    return None if loss is None else Bucket(record.step, record.step, loss * weight, weight, loss, loss)


def _thin(line: Line) -> Line:
    """Keep the lowest and the highest of neighbouring evaluations: they are unevenly spaced."""
    return [line[place] for place in keep_peaks(np.array([bucket.low for bucket in line]), MAX_POINTS)]
