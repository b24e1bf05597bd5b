"""Plan of a study's first round on several devices of the catalogue."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lorascope.costmodel.cost_types import PlannedCost
from lorascope.costmodel.devices import find_device, known_devices
from lorascope.costmodel.placement import Job, PlacedDevice, Placement, earliest_end, place_jobs
from lorascope.costmodel.plan import StudyPlan, plan_study
from lorascope.errors import InputError
from lorascope.records import Arm, TrialRecord
from lorascope.search.rounds import next_trials
from lorascope.search.steps import exits_early
from lorascope.search.trials import plan_trials
from lorascope.spec.schema import StudySpec
from lorascope.units import format_bytes

_ONE = re.compile(r"(?:(\d+)\s*x\s*)?(.+)", re.IGNORECASE)
_MOST_DEVICES = 1024
_MOST_SHARED = 0.95
"""Largest share of a trial's time alone that trials beside it may save."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetPlan:
    """Where the trials of the first round train."""

    devices: tuple[PlacedDevice, ...]
    placement: Placement
    earliest_seconds: float
    """No placement ends before."""
    trials: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _GroupCost:
    """What trials that train together share on a kind of device, and what each adds."""

    seconds: float
    """Taken once, however many trials there are."""
    evaluation_seconds: float
    """Of all evaluations of a trial."""
    first_bytes: int
    """Activations of one trial, less ``further_bytes``."""
    further_bytes: int
    """Activations that each trial adds."""


def parse_devices(text: str) -> list[str]:
    """Return the kind of each device of a list such as ``2xA100-80,4xL4``.

    Raises:
        InputError: a device is not in the catalogue, or there is none or too many.
    """
    kinds: list[str] = []
    for part in (part.strip() for part in text.split(",")):
        match = _ONE.fullmatch(part)
        count, name = match.groups() if match else (None, part)
        device = find_device(name) or find_device(f"{name}GB")
        if device is None:
            raise InputError(f"--devices names {part!r}", remedy=f"give 4xL4 or 2xA100-80,4xL4, of {known_devices()}")
        kinds += [device.name] * min(int(count or 1), _MOST_DEVICES + 1)
    if not 0 < len(kinds) <= _MOST_DEVICES:
        raise InputError(f"--devices {text!r} has {len(kinds)} devices", remedy=f"give 1 to {_MOST_DEVICES}")
    return kinds


def plan_fleet(spec: StudySpec, text: str) -> FleetPlan:
    """Place the trials of a study's first round on devices; see ``parse_devices``.

    Raises:
        InputError: a device is not known, the number of steps is unknown, or no device holds a trial.
    """
    kinds = parse_devices(text)
    plans = {kind: plan_study(spec.model_copy(update={"device": kind})) for kind in dict.fromkeys(kinds)}
    if any(plan.joint.runtime_seconds is None for plan in plans.values()):
        raise InputError("the number of rows is unknown, and so are the times of trials", remedy="give --max-steps")
    trials = next_trials(spec, [], {})
    group = {kind: _group_cost(plan, trials, len(plan_trials(spec))) for kind, plan in plans.items()}
    jobs = [_job(unit, plans, group) for unit in _units(spec, trials)]
    devices = tuple(_device(kinds, place, plans[kind], group[kind]) for place, kind in enumerate(kinds))
    try:
        placement = place_jobs(jobs, devices)
    except ValueError as error:
        largest = max(plans.values(), key=lambda plan: plan.device_memory_bytes)
        raise InputError(
            f"no device holds {error} ({format_bytes(largest.device_memory_bytes)} at most)",
            remedy="give larger devices, smaller ranks, or quantize",
        ) from error
    return FleetPlan(
        devices=devices, placement=placement, earliest_seconds=earliest_end(jobs, devices), trials=len(trials)
    )


def _units(spec: StudySpec, trials: Sequence[TrialRecord]) -> list[list[TrialRecord]]:
    """Return what stays on one device: the settings of an arm where rungs compare them, else each trial by itself."""
    if not exits_early(spec):
        return [[trial] for trial in trials]
    arms: dict[Arm, list[TrialRecord]] = {}
    for trial in trials:
        arms.setdefault(trial.arm, []).append(trial)
    return list(arms.values())


def _job(unit: Sequence[TrialRecord], plans: dict[str, StudyPlan], group: dict[str, _GroupCost]) -> Job:
    costs = {kind: _alone(plan)[unit[0].arm] for kind, plan in plans.items()}
    return Job(
        trials=tuple(trial.trial_id for trial in unit),
        seconds={
            kind: len(unit) * (cost.runtime_seconds - group[kind].seconds + group[kind].evaluation_seconds)
            for kind, cost in costs.items()
            if cost.fits and cost.runtime_seconds is not None
        },
        trial_bytes=max(_state_bytes(cost) + group[kind].further_bytes for kind, cost in costs.items()),
    )


def _state_bytes(cost: PlannedCost) -> int:
    memory = cost.memory_split
    return memory.adapter_bytes + memory.gradient_bytes + memory.optimizer_bytes


def _device(kinds: Sequence[str], place: int, plan: StudyPlan, group: _GroupCost) -> PlacedDevice:
    memory = plan.joint.memory_split
    return PlacedDevice(
        name=f"{kinds[place]} {kinds[: place + 1].count(kinds[place])}",
        kind=kinds[place],
        free_bytes=plan.device_memory_bytes - memory.base_bytes - memory.rest_bytes - group.first_bytes,
        group_seconds=group.seconds,
    )


def _alone(plan: StudyPlan) -> dict[Arm, PlannedCost]:
    return {(part.targets, part.rank): part.cost for part in plan.ranks}


def _group_cost(plan: StudyPlan, trials: Sequence[TrialRecord], planned: int) -> _GroupCost:
    """Return what a group costs, between one trial alone and all trials together."""
    alone = max(part.cost.memory_split.activation_bytes for part in plan.ranks)
    more = max(0, plan.joint.memory_split.activation_bytes - alone)
    further = math.ceil(more / max(1, len(trials) - 1))
    return _GroupCost(
        seconds=_shared_seconds(plan, trials),
        evaluation_seconds=(plan.evaluation_seconds or 0.0) / planned,
        first_bytes=max(0, alone - further),
        further_bytes=further,
    )


def _shared_seconds(plan: StudyPlan, trials: Sequence[TrialRecord]) -> float:
    """Return what trials save by training together, a trial, from their costs alone and together."""
    alone = [_alone(plan)[trial.arm].runtime_seconds or 0.0 for trial in trials]
    if len(alone) < 2 or plan.joint.runtime_seconds is None:
        return 0.0
    saved = (sum(alone) - plan.joint.runtime_seconds) / (len(alone) - 1)
    return min(max(0.0, saved), _MOST_SHARED * min(alone))
