"""A line that grows without end, kept as the few points a chart can show."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from lorascope.store.live import Bucket

MAX_POINTS = 200
"""Most points of one line. Each has a lowest and a highest value, so that these are as many as its chart has pixels."""

Point = tuple[int, float, float, float, float]
"""Number of the bucket, x, mean, lowest, highest."""


class LiveSeries:
    """Neighbouring rows joined so that at most ``MAX_POINTS`` remain; each keeps its lowest and highest value.

    Bucket n holds the positions from n * size on. Its size doubles when there are too many, so that a line of any
    length has between half and all of the points, and nobody has to know how long it will be. Every point remembers
    the version that changed it last: who has seen a version gets what came after it, once.
    """

    def __init__(self) -> None:
        self.size = 1
        self._buckets: list[Bucket] = []
        self._versions: list[int] = []
        self._cleared = 0

    def clear(self, version: int) -> None:
        """Forget all points."""
        self.size = 1
        self._buckets, self._versions = [], []
        self._cleared = version

    def fit(self, position: int) -> None:
        """Make room for rows up to a position before an empty line is filled."""
        while not self._buckets and position >= self.size * MAX_POINTS:
            self.size *= 2

    def extend(self, buckets: Sequence[Bucket], version: int) -> None:
        """Add rows behind the last one, in their order."""
        for bucket in buckets:
            if self._buckets and self._number(self._buckets[-1]) == self._number(bucket):
                self._buckets[-1] = _joined(self._buckets[-1], bucket)
                self._versions[-1] = version
            else:
                self._buckets.append(bucket)
                self._versions.append(version)
        while len(self._buckets) > MAX_POINTS:
            self._halve(version)

    def since(self, version: int) -> tuple[bool, list[Point]]:
        """Return whether the line starts anew, and the points that came or changed after a version."""
        anew = self._cleared > version
        found = zip(self._buckets, self._versions, strict=True)
        return anew, [self._point(bucket) for bucket, at in found if anew or at > version]

    @property
    def last(self) -> float | None:
        """The mean of the last tenth of the line; None without any point."""
        newest = self._buckets[-max(1, len(self._buckets) // 10) :]
        weight = sum(bucket.weight for bucket in newest)
        return sum(bucket.total for bucket in newest) / weight if weight else None

    def _halve(self, version: int) -> None:
        before, self._buckets = self._buckets, []
        self.size *= 2
        for bucket in before:
            if self._buckets and self._number(self._buckets[-1]) == self._number(bucket):
                self._buckets[-1] = _joined(self._buckets[-1], bucket)
            else:
                self._buckets.append(bucket)
        self._versions = [version] * len(self._buckets)
        self._cleared = version

    def _number(self, bucket: Bucket) -> int:
        return bucket.position // self.size

    def _point(self, bucket: Bucket) -> Point:
        return self._number(bucket), bucket.x, bucket.total / bucket.weight, bucket.low, bucket.high


class Follower:
    """Keeps a curve level with rows that grow, and that are cut back when a run continues from its checkpoint.

    ``sparse`` rows, such as evaluations, do not stand at every position and begin at 0.
    """

    def __init__(self, *, sparse: bool = False) -> None:
        self.curve = LiveSeries()
        self._sparse = sparse
        self._before_first = -1 if sparse else 0
        self._last = self._before_first
        self._doubted = False

    def doubt(self) -> None:
        """Expect that rows may have been cut back: read all of them again when they next change."""
        self._doubted = True

    def follow(self, last: int, read: Callable[[int, int], Sequence[Bucket]], version: int) -> bool:
        """Take in what was written up to position ``last`` and say whether there was any; ``read(after, size)``."""
        if last == self._last:
            return False
        if last < self._last or self._doubted:
            self.curve.clear(version)
            self._last, self._doubted = self._before_first, False
        if not self._sparse:
            self.curve.fit(last)
        self.curve.extend(read(self._last, self.curve.size), version)
        self._last = last
        return True


def _joined(first: Bucket, second: Bucket) -> Bucket:
    return replace(
        second,
        total=first.total + second.total,
        weight=first.weight + second.weight,
        low=min(first.low, second.low),
        high=max(first.high, second.high),
    )
