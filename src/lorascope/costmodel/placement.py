"""Placement of jobs on devices: which trains what, and in which groups, so that the last one ends soonest.

A pure function of predicted times and memory. The jobs of a group train together, so that what a group takes once, such
as reading the base in every step, is shared; memory bounds a group, and a device trains its groups one after another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

_MOST_VARIABLES = 400
"""Larger problems are left to the greedy placement, which is close where each device gets many jobs."""
_SOLVER_SECONDS = 4.0
_GAP = 0.01
"""The solver may stop this close to the best end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A trial, or several that have to train together."""

    name: str
    seconds: Mapping[str, float]
    """From the first step to the last, beside others, by kind of device; without the kinds that do not hold it."""
    state_bytes: int
    """Memory of its adapters, their gradients and the optimizer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedDevice:
    """A device that jobs can be placed on."""

    name: str
    kind: str
    free_bytes: int
    """Memory that base, activations and program leave to the states of jobs."""
    group_seconds: float
    """What a group takes beyond its jobs' own seconds, however many they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedGroup:
    """Jobs that train together on a device."""

    device: str
    jobs: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """Groups of every device in the order in which they train."""

    groups: tuple[PlacedGroup, ...]
    ends: Mapping[str, float]
    """Seconds until each device is done, by name."""

    @property
    def end_seconds(self) -> float:
        """Return when the last device is done."""
        return max(self.ends.values())

    def use(self, device: str) -> float:
        """Return the share of the time until the end in which a device works."""
        return self.ends[device] / self.end_seconds if self.end_seconds else 0.0


def place_jobs(
    jobs: Sequence[Job], devices: Sequence[PlacedDevice], busy: Mapping[str, float] = MappingProxyType({})
) -> Placement:
    """Place jobs so that the last one ends as early as can be found in a few seconds.

    Args:
        jobs: each of which some device can hold.
        devices: where they train.
        busy: seconds until a device is free, by name; those that are left out are free now.

    Raises:
        ValueError: no device holds a job, which is named.
    """
    for job in jobs:
        if not any(_holds(device, job) for device in devices):
            raise ValueError(job.name)
    greedy = _grouped(_place_greedily(jobs, devices, busy), devices, busy)
    kinds = _alike(jobs)
    if len(kinds) * len(devices) > _MOST_VARIABLES:
        return greedy
    solved = _solve(kinds, devices, busy)
    return min(
        [greedy, *([] if solved is None else [_grouped(solved, devices, busy)])], key=lambda one: one.end_seconds
    )


def earliest_end(jobs: Sequence[Job], devices: Sequence[PlacedDevice]) -> float:
    """Return a time before which no placement ends: every device busy all the time, and the longest job by itself.

    Jobs may be cut at will there, and what a group takes once is counted once.
    """
    kinds = _alike(jobs)
    end, _ = _minimise_end(kinds, devices, [0.0] * len(devices), whole_jobs=False)
    shared = min(device.group_seconds for device in devices)
    longest = max(
        min(own[0].seconds[device.kind] + device.group_seconds for device in devices if _holds(device, own[0]))
        for own in kinds
    )
    return max(end + shared, longest)


def _holds(device: PlacedDevice, job: Job) -> bool:
    return device.kind in job.seconds and job.state_bytes <= device.free_bytes


def _alike(jobs: Sequence[Job]) -> list[list[Job]]:
    """Put jobs of equal cost together."""
    found: dict[tuple[object, ...], list[Job]] = {}
    for job in jobs:
        found.setdefault((job.state_bytes, *sorted(job.seconds.items())), []).append(job)
    return list(found.values())


Assigned = Mapping[str, Sequence[Job]]
"""The jobs of each device, by its name."""


def _place_greedily(
    jobs: Sequence[Job], devices: Sequence[PlacedDevice], busy: Mapping[str, float]
) -> dict[str, list[Job]]:
    """Place the longest job first, each where it ends first."""
    ends = np.array([busy.get(device.name, 0.0) + device.group_seconds for device in devices])
    placed: dict[str, list[Job]] = {device.name: [] for device in devices}
    kinds = {kind: np.array([device.kind == kind for device in devices]) for kind in {one.kind for one in devices}}
    free = np.array([device.free_bytes for device in devices])
    for job in sorted(jobs, key=lambda job: -min(job.seconds.values())):
        own = np.full(len(devices), np.inf)
        for kind, seconds in job.seconds.items():
            if kind in kinds:
                own[kinds[kind]] = seconds
        own[free < job.state_bytes] = np.inf
        best = int(np.argmin(ends + own))
        ends[best] += own[best]
        placed[devices[best].name].append(job)
    return placed


def _solve(
    kinds: Sequence[Sequence[Job]], devices: Sequence[PlacedDevice], busy: Mapping[str, float]
) -> dict[str, list[Job]] | None:
    """Choose how many jobs of each kind go to each device; None if the solver finds nothing in its time."""
    begun = [busy.get(device.name, 0.0) + device.group_seconds for device in devices]
    _, chosen_KD = _minimise_end(kinds, devices, begun, whole_jobs=True)
    if chosen_KD is None:
        return None
    placed: dict[str, list[Job]] = {device.name: [] for device in devices}
    for own, counts in zip(kinds, np.rint(chosen_KD).astype(int), strict=True):
        left = list(own)
        for device, count in zip(devices, counts, strict=True):
            placed[device.name] += left[:count]
            left = left[count:]
    return placed


def _minimise_end(
    kinds: Sequence[Sequence[Job]], devices: Sequence[PlacedDevice], begun: Sequence[float], *, whole_jobs: bool
) -> tuple[float, NDArray[np.float64] | None]:
    """Minimise the end of the last device, by the jobs of each kind on each device, as a linear program.

    Returns:
        The end, and the jobs, [kinds, devices]; infinite and None where the solver finds nothing in its time.
    """
    holds_KD = np.array([[_holds(device, own[0]) for device in devices] for own in kinds])
    seconds_KD = np.array([[own[0].seconds.get(device.kind, 0.0) for device in devices] for own in kinds])
    counts, (n_kinds, n_devices) = np.array([float(len(own)) for own in kinds]), holds_KD.shape
    placed = np.hstack([np.kron(np.eye(n_kinds), np.ones(n_devices)), np.zeros((n_kinds, 1))])
    load = np.hstack([*(np.diag(row) for row in seconds_KD), np.full((n_devices, 1), -1.0)])
    found = milp(
        np.append(np.zeros(n_kinds * n_devices), 1.0),
        integrality=np.append(np.full(n_kinds * n_devices, int(whole_jobs)), 0),
        constraints=[LinearConstraint(placed, counts, counts), LinearConstraint(load, -np.inf, -np.array(begun))],
        bounds=Bounds(0.0, np.append(np.where(holds_KD, counts[:, None], 0.0).ravel(), np.inf)),
        options={"time_limit": _SOLVER_SECONDS, "mip_rel_gap": _GAP},
    )
    if found.x is None:
        return np.inf, None
    return float(found.x[-1]), found.x[:-1].reshape(n_kinds, n_devices)


def _grouped(placed: Assigned, devices: Sequence[PlacedDevice], busy: Mapping[str, float]) -> Placement:
    """Put the jobs of each device into as few groups as its memory allows, and add up their times."""
    groups: list[PlacedGroup] = []
    ends: dict[str, float] = {}
    for device in devices:
        end = busy.get(device.name, 0.0)
        for jobs in _fill(placed[device.name], device.free_bytes):
            seconds = device.group_seconds + sum(job.seconds[device.kind] for job in jobs)
            groups.append(PlacedGroup(device=device.name, jobs=tuple(job.name for job in jobs), seconds=seconds))
            end += seconds
        ends[device.name] = end
    return Placement(groups=tuple(groups), ends=ends)


def _fill(jobs: Sequence[Job], free_bytes: int) -> list[list[Job]]:
    """Fill groups with the largest jobs first, each into the first group that has room for it."""
    groups: list[list[Job]] = []
    left: list[int] = []
    for job in sorted(jobs, key=lambda job: -job.state_bytes):
        place = next((place for place, room in enumerate(left) if room >= job.state_bytes), len(groups))
        if place == len(groups):
            groups.append([])
            left.append(free_bytes)
        groups[place].append(job)
        left[place] -= job.state_bytes
    return groups
