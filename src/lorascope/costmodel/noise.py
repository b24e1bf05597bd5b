"""Noise of a difference between two ranks: what finished studies showed of it, stored in the user's data folder."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from lorascope.costmodel.calibration import read_entries, write_entries
from lorascope.spec.schema import StudySpec

_FILE = "noise.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    """Standard deviations of a difference between two ranks' held-out losses, in nats a token."""

    row: float
    """From row to row, in all seeds alike."""
    row_of_seed: float
    """From row to row, in one seed alone."""
    seed: float
    """From seed to seed, over all rows that there could be."""
    target_tokens: float
    """Mean target tokens of the rows: a row with more of them varies less."""

    def at(self, target_tokens: float) -> Self:
        """Return the noise on rows of another mean length."""
        factor = math.sqrt(self.target_tokens / target_tokens)
        return replace(self, row=factor * self.row, row_of_seed=factor * self.row_of_seed, target_tokens=target_tokens)


ASSUMED = Noise(
    row=math.sqrt(2.5) * 0.02, row_of_seed=math.sqrt(2) * 0.02, seed=math.sqrt(2) * math.hypot(0.002, 0.001),
    target_tokens=60.0,
)  # fmt: skip
"""Noise where no study has finished: that of the simulated plain studies of docs/verdict.md, a mean over
their pairs of ranks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyNoise(Noise):
    """Noise that a finished study showed."""

    model: str
    dataset: str


def find_noise(spec: StudySpec) -> StudyNoise | None:
    """Return what the last study of the same model and data set showed; None without one."""
    key = _key(spec)
    return next((entry for entry in _read() if (entry.model, entry.dataset) == key), None)


def keep_noise(spec: StudySpec, found: Noise) -> None:
    """Store what a study showed in place of the last one of the same model and data set."""
    model, dataset = key = _key(spec)
    others = [known for known in _read() if (known.model, known.dataset) != key]
    write_entries(_FILE, [*map(asdict, others), {"model": model, "dataset": dataset, **asdict(found)}])


def _key(spec: StudySpec) -> tuple[str, str]:
    return _place(spec.model), " + ".join(map(_place, spec.dataset_names))


def _place(name: str) -> str:
    """Return the whole path of a local file or folder, else the name."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() else name


def _read() -> list[StudyNoise]:
    return [found for entry in read_entries(_FILE) if (found := _parse(entry))]


def _parse(entry: object) -> StudyNoise | None:
    if not isinstance(entry, Mapping):
        return None
    try:
        found = StudyNoise(**entry)
        numbers = (found.row, found.row_of_seed, found.seed)
        valid = all(math.isfinite(n) and n >= 0 for n in numbers) and 0 < found.target_tokens < math.inf
    except TypeError:
        return None
    return found if valid else None
