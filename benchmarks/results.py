"""Dated results on disk, with the machine in their name and nothing of its paths in them."""

import contextlib
import importlib.metadata
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from pathlib import Path

from lorascope.measure.environment import cpu_model, environment, usable_cores

FOLDER = Path(__file__).parent / "results"
WIDTH = 140
"""Columns of what is printed: a log has no terminal to ask."""
_PEERS = ("trl",)
"""Packages whose versions matter here and not to a study."""


def save(what: str, command: str, content: Mapping[str, object]) -> Path:
    """Write ``YYYY-MM-DD-<cpu>-<n>cores-<what>.json``; a second one of the same day takes the place of the first."""
    machine = asdict(environment(device="cpu", device_name=cpu_model(), seeds=(0,), command=command))
    for name in _PEERS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            machine["packages"][name] = importlib.metadata.version(name)
    path = FOLDER / f"{date.today()}-{_slug(cpu_model())}-{usable_cores()}cores-{what}.json"
    FOLDER.mkdir(exist_ok=True)
    path.write_text(json.dumps({"environment": machine, **content}, indent=1) + "\n", encoding="utf-8")
    return path


def _slug(cpu: str) -> str:
    """Turn a processor's name for itself into part of a file name, without trademark signs and filler."""
    plain = re.sub(r"\((r|tm)\)|\bcpu\b|\bprocessor\b|@.*", " ", cpu.lower())
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
