"""Placement of jobs on devices."""

import pytest

import placement as simulation
from lorascope.costmodel.fleet import parse_devices
from lorascope.costmodel.placement import Job, PlacedDevice, earliest_end, place_jobs
from lorascope.errors import InputError


def job(name: str, seconds: float, state: int = 1, **other: float) -> Job:
    return Job(trials=tuple(name.split()), seconds={"slow": seconds, **other}, trial_bytes=state)


def device(name: str, kind: str = "slow", free: int = 100, shared: float = 0.0) -> PlacedDevice:
    return PlacedDevice(name=name, kind=kind, free_bytes=free, group_seconds=shared)


def test_solver_finds_the_placement_that_the_longest_first_rule_misses() -> None:
    jobs = [job(str(number), seconds) for number, seconds in enumerate((3.0, 3.0, 2.0, 2.0, 2.0))]
    found = place_jobs(jobs, [device("a"), device("b")])
    assert found.end_seconds == 6.0
    assert sorted(found.ends.values()) == [6.0, 6.0]
    assert found.use("a") == 1.0


def test_jobs_train_together_where_that_shares_time_and_apart_where_memory_is_short() -> None:
    jobs = [job(str(number), 1.0, state=40) for number in range(4)]
    (whole,) = place_jobs(jobs, [device("a", free=160, shared=10.0)]).groups
    assert whole.seconds == 14.0
    halves = place_jobs(jobs, [device("a", free=100, shared=10.0)])
    assert [len(group.trials) for group in halves.groups] == [2, 2]
    assert halves.end_seconds == 24.0


def test_a_job_goes_only_where_it_fits() -> None:
    jobs = [job("large", 5.0, state=90, fast=1.0), job("small", 5.0, state=10, fast=1.0)]
    devices = [device("slow one"), device("fast one", kind="fast", free=50)]
    placed = {name: group.device for group in place_jobs(jobs, devices).groups for name in group.trials}
    assert placed == {"large": "slow one", "small": "fast one"}
    with pytest.raises(ValueError, match="large"):
        place_jobs(jobs, devices[1:])


def test_trials_that_stay_on_one_device_are_parted_where_memory_is_short() -> None:
    found = place_jobs([job("a b c d", 8.0, state=40)], [device("one", shared=1.0), device("two", shared=1.0)])
    assert len({group.device for group in found.groups}) == 1
    assert [group.trials for group in found.groups] == [("a", "b"), ("c", "d")]
    assert [group.seconds for group in found.groups] == [5.0, 5.0]
    assert found.end_seconds == 10.0


def test_placement_of_a_thousand_trials_ends_close_to_the_bound() -> None:
    """A short version of ``benchmarks/placement.py``."""
    for name in ("4 L4", "4 H100, 8 L40S, 4 L4"):
        case = simulation.scenario(1e9, simulation.FLEETS[name])
        end, bound = place_jobs(case.jobs, case.devices).end_seconds, earliest_end(case.jobs, case.devices)
        assert bound <= end <= 1.1 * bound
        assert simulation.one_by_one(case) >= end


def test_devices_are_counted_by_kind() -> None:
    assert parse_devices("2xA100-80, l4") == ["A100-80GB", "A100-80GB", "L4"]


@pytest.mark.parametrize("text", ["", "3xM1", "0xL4", "4x", "5000xL4"])
def test_devices_that_are_not_known_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--devices") as caught:
        parse_devices(text)
    assert caught.value.remedy
