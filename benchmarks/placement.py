"""Simulate the placement of 1,000 trials on 1 to 64 devices.

    python benchmarks/placement.py

Times follow from the rates of the catalogue. Each micro-batch reads the weights of the base and launches operations; a
trial adds its arithmetic and the launches of its adapter. Trials that train together share micro-batches.
"""

import heapq
import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lorascope.costmodel.devices import BANDWIDTH_SHARE, CONTEXT_BYTES, LAUNCH_SECONDS, MATMUL_SHARE, find_device
from lorascope.costmodel.placement import Job, PlacedDevice, earliest_end, place_jobs

TRIALS, STEPS = 1000, 500
RANKS = (4, 8, 16, 32, 64, 128, 256, 512)
FLEETS = {
    "1 L4": {"L4": 1},
    "4 L4": {"L4": 4},
    "2 A100-80GB, 4 L4": {"A100-80GB": 2, "L4": 4},
    "4 H100, 8 L40S, 4 L4": {"H100": 4, "L40S": 8, "L4": 4},
    "16 H100, 16 A100-80GB, 32 L4": {"H100": 16, "A100-80GB": 16, "L4": 32},
}
LAYERS = {0.1e9: 12, 1e9: 16, 8e9: 32, 70e9: 80}
"""Of bases, by their parameters."""
MICROBATCH_TOKENS = 3072
BASE_LAUNCHES, ADAPTER_LAUNCHES = 60, 40
"""Operations of a layer, forward and backward."""


@dataclass(frozen=True)
class Scenario:
    jobs: Sequence[Job]
    devices: Sequence[PlacedDevice]
    alone: Mapping[str, Mapping[str, float]]
    """Seconds of each job by itself, by kind of device."""


def state_bytes(parameters: float, rank: int) -> int:
    """An adapter on every linear layer of a model in Llama's proportions, with gradients and AdamW's averages."""
    return int(16 * rank * 30 * math.sqrt(parameters))


def device_of(kind: str, parameters: float) -> tuple[PlacedDevice, float]:
    """A device with the seconds of a micro-batch beyond arithmetic, and its operations a second."""
    device = find_device(kind)
    assert device is not None
    reading = 4 * parameters / (BANDWIDTH_SHARE * device.bandwidth)
    free = int(0.9 * device.memory_bytes - 2 * parameters - CONTEXT_BYTES)
    shared = STEPS * (reading + LAYERS[parameters] * BASE_LAUNCHES * LAUNCH_SECONDS)
    placed = PlacedDevice(name=kind, kind=kind, free_bytes=free, group_seconds=shared)
    return placed, MATMUL_SHARE * device.rates["bfloat16"]


def scenario(parameters: float, fleet: Mapping[str, int], trials: int = TRIALS) -> Scenario | None:
    """Trials of all ranks with batches of several sizes; None where a device does not hold base and largest rank."""
    rng = random.Random(0)
    kinds = {kind: device_of(kind, parameters) for kind in fleet}
    if min(device.free_bytes for device, _ in kinds.values()) < state_bytes(parameters, max(RANKS)):
        return None
    jobs, alone = [], {}
    for number in range(trials):
        rank, tokens, name = rng.choice(RANKS), rng.choice((500, 1000, 2000, 4000, 8000)), str(number)
        state = state_bytes(parameters, rank)
        launching = STEPS * LAYERS[parameters] * ADAPTER_LAUNCHES * LAUNCH_SECONDS
        work = STEPS * tokens * 4 * (parameters + state / 16)
        own = {kind: work / rate + launching for kind, (_, rate) in kinds.items()}
        share = tokens / MICROBATCH_TOKENS
        seconds = {kind: own[kind] + share * device.group_seconds for kind, (device, _) in kinds.items()}
        jobs.append(Job(trials=(name,), seconds=seconds, trial_bytes=state))
        alone[name] = {kind: own[kind] + math.ceil(share) * device.group_seconds for kind, (device, _) in kinds.items()}
    devices = [
        replace(kinds[kind][0], name=f"{kind} {place}") for kind, count in fleet.items() for place in range(count)
    ]
    return Scenario(jobs, devices, alone)


def one_by_one(case: Scenario) -> float:
    """End of one trial a device, in the order of the trials, each on the device that is free first."""
    free = [(0.0, place) for place in range(len(case.devices))]
    for job in case.jobs:
        at, place = heapq.heappop(free)
        heapq.heappush(free, (at + case.alone[job.trials[0]][case.devices[place].kind], place))
    return max(free)[0]


def main() -> None:
    print("| base | devices | end / bound | sooner than one by one | planned in, s |")
    print("| --- | --- | --- | --- | --- |")
    for parameters in LAYERS:
        for name, fleet in FLEETS.items():
            case = scenario(parameters, fleet)
            if case is None:
                continue
            began = time.perf_counter()
            end = place_jobs(case.jobs, case.devices).end_seconds
            took, bound = time.perf_counter() - began, earliest_end(case.jobs, case.devices)
            sooner = one_by_one(case) / end
            print(f"| {parameters / 1e9:g}B | {name} | {end / bound:.3f} | {sooner:.2f} | {took:.1f} |", flush=True)


if __name__ == "__main__":
    main()
