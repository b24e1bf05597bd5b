"""Control-group limits: the CPU time and memory that a container or service allows this process.

Both versions are read, v2 (``cpu.max``, ``memory.max``) and v1 (``cpu.cfs_quota_us``, ``memory.limit_in_bytes``). A
group also limits the groups below it, so the smallest limit on the way to the root counts. Source: the kernel's
Documentation/admin-guide/cgroup-v2.rst and Documentation/scheduler/sched-bwc.rst.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_ROOT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def cpu_quota(root: Path = _ROOT, membership: Path = _MEMBERSHIP) -> float | None:
    """Return how many cores' worth of time this process may use; None without a quota.

    Args:
        root: where control groups are mounted.
        membership: the file that names the process's groups.
    """
    quotas = (_cpu_quota(folder) for folder in _groups("cpu", root, membership))
    return min((quota for quota in quotas if quota is not None), default=None)


def memory_limit(root: Path = _ROOT, membership: Path = _MEMBERSHIP) -> int | None:
    """Return how many bytes this process's groups may hold, with the arguments of ``cpu_quota``.

    Without a limit this is None, or in version 1 a number larger than any memory.
    """
    folders = _groups("memory", root, membership)
    limits = (_number(folder / name) for folder in folders for name in ("memory.max", "memory.limit_in_bytes"))
    return min((limit for limit in limits if limit is not None), default=None)


def _groups(controller: str, root: Path, membership: Path) -> Iterator[Path]:
    """Yield the folders of the process's groups and of all groups above them.

    Inside a container the named group may not be mounted while its own limits lie at the root, which comes last.
    """
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mounts = (root / controllers, root / controller) if controllers else (root, root / "unified")
        group = PurePosixPath(path).relative_to("/")
        for mount in mounts:
            yield from (mount / part for part in (group, *group.parents))


def _cpu_quota(folder: Path) -> float | None:
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    if quota is None or period is None:
        quota, period = _number(folder / "cpu.max"), _number(folder / "cpu.max", field=1)
    return quota / period if quota and period else None


def _number(path: Path, *, field: int = 0) -> int | None:
    """Return a whole number of a file; None for ``max``, for -1 and where there is no such file."""
    try:
        text = path.read_text(encoding="ascii").split()[field]
    except (OSError, IndexError):
        return None
    return int(text) if text.isdigit() else None
