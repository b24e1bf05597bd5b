"""What finished studies taught about a machine: how far predictions were off, kept in the user's data folder."""

import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import platformdirs

_FILE = "calibration.json"
_COST_MODEL = 3
"""Which cost model a factor corrects; those of another say nothing here."""
_MOST_LARGER = 32
"""A study of a model that is so many times larger or smaller says nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """One finished study beside its prediction."""

    device: str
    """Name of the device, with the number of threads on a CPU."""
    dtype: str
    parameters: int
    """Of the base model: a later plan takes the study whose model is nearest in size."""
    factor: float
    """Measured step time of a rank alone over its predicted step time."""
    joint_factor: float
    """The same of the whole pack."""
    rest_bytes: int
    """Memory that the prediction's other parts do not explain: program, libraries, what they keep."""
    cost_model: int = _COST_MODEL


def data_folder() -> Path:
    """Return the folder of what lorascope remembers: ``LORASCOPE_DATA``, or the user's data folder."""
    chosen = os.environ.get("LORASCOPE_DATA")
    return Path(chosen) if chosen else Path(platformdirs.user_data_dir("lorascope", appauthor=False))


def find_calibration(device: str, dtype: str, parameters: int) -> Calibration | None:
    """Return what the study of the model nearest in size taught about this device and precision."""
    known = [entry for entry in _read() if (entry.device, entry.dtype) == (device, dtype)]
    near = [entry for entry in known if 1 / _MOST_LARGER <= entry.parameters / parameters <= _MOST_LARGER]
    return min(near, key=lambda entry: abs(math.log(entry.parameters / parameters)), default=None)


def keep_calibration(entry: Calibration) -> None:
    """Keep what a study taught, in place of the last one of the same device, precision and size.

    The file appears whole or not at all. What cannot be written is not kept: no study fails over it.
    """
    same = (entry.device, entry.dtype, entry.parameters)
    others = [known for known in _read() if (known.device, known.dtype, known.parameters) != same]
    folder = data_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=folder, prefix=".calibration.", delete=False
        ) as file:
            json.dump([asdict(known) for known in [*others, entry]], file, indent=1)
        Path(file.name).replace(folder / _FILE)
    except OSError:
        return


def _read() -> list[Calibration]:
    """Read what is known; what another version or hand made unreadable says nothing."""
    try:
        entries = json.loads((data_folder() / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [found for entry in entries if (found := _usable(entry))] if isinstance(entries, list) else []


def _usable(entry: object) -> Calibration | None:
    if not isinstance(entry, Mapping) or entry.get("cost_model") != _COST_MODEL:
        return None
    try:
        found = Calibration(**entry)
        numbers = (found.parameters, found.factor, found.joint_factor, found.rest_bytes)
        sound = all(math.isfinite(n) and n >= 0 for n in numbers) and min(numbers[:3]) > 0
    except TypeError:
        return None
    return found if sound else None
