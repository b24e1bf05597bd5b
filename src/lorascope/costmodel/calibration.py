"""Calibration of the cost model: ratios of measured to predicted costs, stored in the user's data folder."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from lorascope.atomic import write_whole
from lorascope.paths import data_folder

_FILE = "calibration.json"
_COST_MODEL = 3
"""Version of the cost model; a factor corrects no other version."""
_LARGEST_RATIO = 32
"""A study says nothing about models that are more times larger or smaller."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Measured against predicted costs of one finished study."""

    device: str
    """Name of the device, with the number of threads on a CPU."""
    dtype: str
    parameters: int
    """Of the base model: a plan takes the study whose model is nearest in size."""
    factor: float
    """Measured over predicted step time of a solo run."""
    joint_factor: float
    """Measured over predicted step time of the whole trial group."""
    rest_bytes: int
    """Memory beyond the other parts of a prediction: program, libraries, caches."""
    cost_model: int = _COST_MODEL


def find_calibration(device: str, dtype: str, parameters: int) -> Calibration | None:
    """Return the calibration for this device and precision whose model is nearest in size; None without one."""
    known = [entry for entry in _read() if (entry.device, entry.dtype) == (device, dtype)]
    near = [entry for entry in known if 1 / _LARGEST_RATIO <= entry.parameters / parameters <= _LARGEST_RATIO]
    return min(near, key=lambda entry: abs(math.log(entry.parameters / parameters)), default=None)


def keep_calibration(entry: Calibration) -> None:
    """Store a calibration in place of the last one for the same device, precision and size."""
    key = (entry.device, entry.dtype, entry.parameters)
    others = [known for known in _read() if (known.device, known.dtype, known.parameters) != key]
    write_entries(_FILE, [asdict(known) for known in [*others, entry]])


def write_entries(name: str, entries: Sequence[Mapping[str, object]]) -> None:
    """Write a file of the user's data folder.

    A folder that cannot be written is ignored, so that no study fails over it.
    """
    folder = data_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / name, json.dumps(entries, indent=1), derived=True)
    except OSError:
        return


def read_entries(name: str) -> list[object]:
    """Read a file of the user's data folder; one that is not there, or that an editor broke, has no entries."""
    try:
        entries = json.loads((data_folder() / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return entries if isinstance(entries, list) else []


def _read() -> list[Calibration]:
    """Read all usable entries; those that other versions or editors broke are skipped."""
    return [found for entry in read_entries(_FILE) if (found := _parse(entry))]


def _parse(entry: object) -> Calibration | None:
    if not isinstance(entry, Mapping) or entry.get("cost_model") != _COST_MODEL:
        return None
    try:
        found = Calibration(**entry)
        numbers = (found.parameters, found.factor, found.joint_factor, found.rest_bytes)
        valid = all(math.isfinite(n) and n >= 0 for n in numbers) and min(numbers[:3]) > 0
    except TypeError:
        return None
    return found if valid else None
