"""Placement of jobs on devices: which trains what, and in which groups, so that the last one ends soonest.

A pure function of predicted times and memory. The jobs of a group train together, so that what a group takes once, such
as reading the base in every step, is shared; memory bounds a group, and a device trains its groups one after another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    """A trial, or several of equal cost that have to train on one device, though memory may part them there."""

    trials: tuple[str, ...]
    """Their names."""
    seconds: Mapping[str, float]
    """Of all of them, beside others, by kind of device; without the kinds that do not hold one."""
    trial_bytes: int
    """Memory that each adds to its group: adapter, gradients, optimizer and its share of the activations."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedDevice:
    """A device that jobs can be placed on."""

    name: str
    kind: str
    free_bytes: int
    """Memory that base, program and what a group has once leave to trials."""
    group_seconds: float
    """What a group takes beyond its jobs' own seconds, however many they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedGroup:
    """Trials that train together on a device."""

    device: str
    trials: tuple[str, ...]
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


def place_jobs(jobs: Sequence[Job], devices: Sequence[PlacedDevice]) -> Placement:
    """Place jobs so that the last one ends as early as can be found in a few seconds.

    Args:
        jobs: each of which some device can hold.
        devices: where they train.

    Raises:
        ValueError: no device holds a trial, which is named.
    """
    for job in jobs:
        if not any(_holds(device, job) for device in devices):
            raise ValueError(job.trials[0])
    greedy = _grouped(_place_greedily(jobs, devices), devices)
    kinds = _alike(jobs)
    if len(kinds) * len(devices) > _MOST_VARIABLES:
        return greedy
    solved = _solve(kinds, devices)
    return min([greedy, *([] if solved is None else [_grouped(solved, devices)])], key=lambda one: one.end_seconds)


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
    return device.kind in job.seconds and job.trial_bytes <= device.free_bytes


def _alike(jobs: Sequence[Job]) -> list[list[Job]]:
    """Put jobs of equal cost together."""
    found: dict[tuple[object, ...], list[Job]] = {}
    for job in jobs:
        found.setdefault((job.trial_bytes, len(job.trials), *sorted(job.seconds.items())), []).append(job)
    return list(found.values())


Assigned = Mapping[str, Sequence[Job]]
"""The jobs of each device, by its name."""


def _place_greedily(jobs: Sequence[Job], devices: Sequence[PlacedDevice]) -> dict[str, list[Job]]:
    """Place the longest job first, each where it ends first."""
    ends = np.array([device.group_seconds for device in devices])
    placed: dict[str, list[Job]] = {device.name: [] for device in devices}
    kinds = {kind: np.array([device.kind == kind for device in devices]) for kind in {one.kind for one in devices}}
    free = np.array([device.free_bytes for device in devices])
    for job in sorted(jobs, key=lambda job: -min(job.seconds.values())):
        own = np.full(len(devices), np.inf)
        for kind, seconds in job.seconds.items():
            if kind in kinds:
                own[kinds[kind]] = seconds
        own[free < job.trial_bytes] = np.inf
        best = int(np.argmin(ends + own))
        ends[best] += own[best]
        placed[devices[best].name].append(job)
    return placed


def _solve(kinds: Sequence[Sequence[Job]], devices: Sequence[PlacedDevice]) -> dict[str, list[Job]] | None:
    """Choose how many jobs of each kind go to each device; None if the solver finds nothing in its time."""
    begun = [device.group_seconds for device in devices]
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


def _grouped(placed: Assigned, devices: Sequence[PlacedDevice]) -> Placement:
    """Put the trials of each device into as few groups as its memory allows, and add up their times."""
    groups: list[PlacedGroup] = []
    ends: dict[str, float] = {}
    for device in devices:
        end = 0.0
        for trials in _fill(placed[device.name], device.free_bytes):
            seconds = device.group_seconds + sum(job.seconds[device.kind] / len(job.trials) for _, job in trials)
            groups.append(PlacedGroup(device=device.name, trials=tuple(name for name, _ in trials), seconds=seconds))
            end += seconds
        ends[device.name] = end
    return Placement(groups=tuple(groups), ends=ends)


def _fill(jobs: Sequence[Job], free_bytes: int) -> list[list[tuple[str, Job]]]:
    """Fill groups with the largest trials first, each into the first group that has room for it."""
    groups: list[list[tuple[str, Job]]] = []
    left: list[int] = []
    largest_first = sorted(jobs, key=lambda job: -job.trial_bytes)
    for name, job in [(name, one) for one in largest_first for name in one.trials]:
        place = next((place for place, room in enumerate(left) if room >= job.trial_bytes), len(groups))
        if place == len(groups):
            groups.append([])
            left.append(free_bytes)
        groups[place].append((name, job))
        left[place] -= job.trial_bytes
    return groups
