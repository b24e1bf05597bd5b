"""Cost readings of solo runs, against numbers worked out by hand."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorascope.analysis import summarize
from lorascope.analysis.cost.gpu import throttle_reasons
from lorascope.analysis.cost.memory import start_spike
from lorascope.analysis.cost.solo import bottleneck, shares
from lorascope.analysis.cost.whole_run import process_part
from lorascope.message import Message
from lorascope.records import GpuSample, MachineRates, SoloRun, SystemSample
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from support.messages import codes, values_of

MB = 1_000_000
BASE = 4 * 134_515_008
"""Bytes of the made-up study's base, in float32."""
PROGRAM = 300 * MB
PHASES = (
    "base_bytes", "forward_peak_bytes", "backward_peak_bytes", "optimizer_peak_bytes", "evaluation_peak_bytes",
    "held_bytes", "after_bytes",
)  # fmt: skip


def run_of(rank: int, number: int, seconds: tuple[float, ...] = (9.0, 2.0), **changes: Any) -> SoloRun:
    """A solo run that holds the made-up adapter (800 kB a rank), 50 MB of activations and little more."""
    base, state = PROGRAM + BASE, 800_000 * rank
    last = number == 1
    fields: dict[str, object] = {
        "rank": rank, "repeat": number, "step_seconds": seconds, "warmup_steps": 1,
        "step_tokens": (100,) * len(seconds), "cpu_seconds": 1.5 * math.fsum(seconds[1:]), "base_bytes": base,
        "forward_peak_bytes": base + state + 55 * MB, "backward_peak_bytes": base + state + 60 * MB,
        "optimizer_peak_bytes": base + state + 2 * MB,
        "evaluation_peak_bytes": base + state + 30 * MB if last else None, "held_bytes": base + state + MB,
        "after_bytes": base + 3 * MB, "reserved_peak_bytes": None, "memory_method": "kernel",
        "samples_bytes": (base, base + 60 * MB, base + 40 * MB, base + 42 * MB),
        "warmup_samples": 2, "heaviest_tokens": 130 if last else None, "activation_bytes": 50 * MB if last else None,
        "product_flops": None if number else 3 * 10**10, "product_bytes": None if number else 10**9,
    }  # fmt: skip
    return SoloRun(**(fields | changes))  # type: ignore[arg-type]


@pytest.fixture
def measured(make_study: Callable[..., Path]) -> Callable[..., Path]:
    """A finished study whose ranks took these runs."""

    def write(*runs: SoloRun, rates: MachineRates | None = None, gpus: tuple[GpuSample, ...] = ()) -> Path:
        ranks = tuple(sorted({run.rank for run in runs}))
        folder = make_study(spec=StudySpec(ranks=ranks), floors=dict.fromkeys(ranks, 1.2), runs=runs)
        with StudyStore.create(folder / "study.db") as store:
            store.put_all(gpus)
            if rates is not None:
                store.put(rates)
        return folder

    return write


RATES = MachineRates(dtype="float32", flops_per_second=2e10, bytes_per_second=1e10)


def test_times_use_all_solo_runs_and_memory_the_last(measured: Callable[..., Path]) -> None:
    first = run_of(8, 0, (9.0, 2.0, 2.4), forward_peak_bytes=10**12)
    second = run_of(8, 1, (8.0, 2.2, 3.0))
    (part,) = summarize(measured(first, second, rates=RATES)).ranks
    cost = part.cost
    assert cost is not None
    assert part.step_seconds == pytest.approx(2.3)
    assert part.runtime_seconds == part.step_seconds * 80
    assert part.tokens_per_second == pytest.approx(400 / 9.6)
    assert part.peak_memory_bytes == second.backward_peak_bytes
    assert (cost.turns, cost.measured_steps, cost.tokens_per_step) == (2, 4, 100)
    assert cost.turn_step_seconds == pytest.approx((2.2, 2.6))
    # quartiles of 2.0, 2.2, 2.4, 3.0, interpolated linearly: 2.15 and 2.55
    assert cost.step_seconds_spread == pytest.approx(0.4)
    assert cost.warmup_seconds == 8.5
    assert cost.cpu_utilization == pytest.approx(1.5 / 2)
    assert cost.left_behind_bytes == 3 * MB
    assert part.gpu is None


def test_peak_memory_excludes_what_an_earlier_rank_left(measured: Callable[..., Path]) -> None:
    """Rank 8 runs last, with 20 MB more in use than when rank 64 ran."""
    late = run_of(8, 1)
    moved = {name: getattr(late, name) + 20 * MB for name in PHASES}
    runs = (run_of(8, 0), run_of(64, 0), run_of(64, 1), replace(late, **moved))
    summary = summarize(measured(*runs))
    eight, sixty_four = summary.ranks
    assert eight.peak_memory_bytes == late.backward_peak_bytes
    assert sixty_four.peak_memory_bytes == runs[2].backward_peak_bytes
    assert eight.cost is not None
    assert {part.program for part in eight.cost.split} == {PROGRAM}
    assert summary.costs.growth[0].bytes_per_rank == pytest.approx(800_000)


def test_memory_parts_add_up_in_every_phase(measured: Callable[..., Path]) -> None:
    (part,) = summarize(measured(run_of(8, 0), run_of(8, 1), rates=RATES)).ranks
    assert part.cost is not None
    split = {found.phase: found for found in part.cost.split}
    assert list(split) == ["forward", "backward", "optimizer", "evaluation", "held"]
    rests = {"forward": 5, "backward": 10, "optimizer": 2, "evaluation": 30, "held": 1}
    for phase, found in split.items():
        assert (found.program, found.base) == (PROGRAM, BASE)
        assert (found.adapter, found.gradient, found.optimizer) == (1_600_000, 1_600_000, 3_200_000)
        assert found.activations == (50 * MB if phase in ("forward", "backward") else 0)
        assert found.rest == rests[phase] * MB
        parts = (found.program, found.base, found.adapter, found.gradient, found.optimizer, found.activations)
        assert sum(parts) + found.rest == found.total


def test_memory_growth_separates_fixed_and_per_rank_bytes(measured: Callable[..., Path]) -> None:
    runs = [run_of(rank, number) for rank in (8, 64, 256) for number in (0, 1)]
    growth = {str(part.phase): part for part in summarize(measured(*runs)).costs.growth}
    for phase, fixed in {"forward": 55, "backward": 60, "optimizer": 2, "evaluation": 30, "held": 1}.items():
        assert growth[phase].bytes_per_rank == pytest.approx(800_000)
        assert growth[phase].fixed_bytes == pytest.approx(fixed * MB)
        assert growth[phase].counted_bytes_per_rank == 800_000


def test_bottleneck_follows_from_flops_bytes_and_rates(measured: Callable[..., Path]) -> None:
    (part,) = summarize(measured(run_of(8, 0), run_of(8, 1), rates=RATES)).ranks
    assert part.cost is not None
    assert part.cost.arithmetic_share == pytest.approx(3e10 / 2e10 / 2.0)
    assert part.cost.bandwidth_share == pytest.approx(1e9 / 1e10 / 2.0)
    assert part.cost.flops_per_byte == 30
    assert part.cost.bottleneck == "arithmetic"
    assert bottleneck(0.2, 0.6) == "bandwidth"
    assert bottleneck(0.3, 0.4) == "overhead"
    assert bottleneck(None, 0.9) is None
    assert shares(10, 10, 1.0, None) == shares(None, None, 1.0, RATES) == (None, None)


def test_cost_readings_name_the_steadiest_and_most_memory_bound_rank(
    measured: Callable[..., Path],
) -> None:
    steady, unsteady = (9.0, 2.0, 2.02), (9.0, 2.0, 2.1)
    runs = [run_of(8, 0, unsteady), run_of(8, 1, unsteady), run_of(64, 0, steady), run_of(64, 1, steady)]
    runs[2] = replace(runs[2], product_bytes=2 * 10**9, samples_bytes=(PROGRAM + BASE,) * 4)
    readings = summarize(measured(*runs, rates=RATES)).costs.readings
    assert (readings.steadiest_time_rank, readings.steadiest_memory_rank, readings.bandwidth_rank) == (64, 64, 64)
    assert codes(readings.texts) == [
        "costs.steadiest_time", "costs.steadiest_memory", "costs.bandwidth_rank", "costs.arithmetic",
        "costs.arithmetic",
    ]  # fmt: skip
    time, memory, bandwidth, bottleneck_of_8, _ = (message.values for message in readings.texts)
    # quartiles of 2.0, 2.0, 2.02, 2.02: 2.0 and 2.02
    assert time == pytest.approx({"rank": 64, "spread": 0.02 / 2.01})
    assert memory == {"rank": 64, "spread": 0}
    assert bandwidth == pytest.approx({"rank": 64, "share": 2e9 / 1e10 / 2.01})
    assert bottleneck_of_8 == pytest.approx({"rank": 8, "arithmetic": 3e10 / 2e10 / 2.05, "bandwidth": 0.1 / 2.05})


def test_cost_differences_within_solo_run_noise_are_not_reported(measured: Callable[..., Path]) -> None:
    steady, unsteady, slower = (9.0, 2.0, 2.02), (9.0, 2.0, 2.1), (9.0, 2.4, 2.5)
    runs = [run_of(8, 0, unsteady), run_of(8, 1, slower), run_of(64, 0, steady), run_of(64, 1, steady)]
    runs[2] = replace(runs[2], product_bytes=104 * 10**7)
    one_run = summarize(measured(*runs[::2], rates=RATES)).costs.readings
    assert (one_run.steadiest_time_rank, one_run.bandwidth_rank) == (None, None)
    assert one_run.texts[0] == Message("costs.too_few_steps")
    readings = summarize(measured(*runs, rates=RATES)).costs.readings
    assert (readings.steadiest_time_rank, readings.bandwidth_rank) == (None, None)
    apart = pytest.approx({"apart": 2.45 / 2.05 - 1})
    assert values_of(readings.texts, "costs.steadiest_time_unknown") == apart
    assert values_of(readings.texts, "costs.bandwidth_unknown") == apart
    alike = replace(runs[2], product_bytes=10**9, step_seconds=(9.0, 2.25, 2.25))
    readings = summarize(measured(*runs[:2], alike, replace(alike, repeat=1), rates=RATES)).costs.readings
    assert Message("costs.bandwidth_alike") in readings.texts


def test_cost_readings_need_enough_data(measured: Callable[..., Path]) -> None:
    summary = summarize(measured(run_of(8, 0), run_of(8, 1), run_of(64, 0), run_of(64, 1)))
    readings = summary.costs.readings
    assert (readings.steadiest_time_rank, readings.bandwidth_rank) == (None, None)
    assert readings.texts[0] == Message("costs.too_few_steps")
    assert [part.cost.bottleneck for part in summary.ranks] == [None, None]
    assert summary.costs.machine_flops_per_second is None


def test_faster_larger_rank_is_a_caution(measured: Callable[..., Path]) -> None:
    def said(seconds: float) -> list[Message]:
        slow, quick = (9.0, seconds), (9.0, 2.0)
        summary = summarize(
            measured(run_of(8, 0, slow), run_of(8, 1, slow), run_of(64, 0, quick), run_of(64, 1, quick))
        )
        found = [caution.text for caution in summary.cautions if caution.kind == "unsteady_steps"]
        return [message for messages in found for message in messages]

    (text,) = said(4.0)
    assert text == Message("caution.larger_faster", larger=64, smaller=8, fast=2.0, slow=4.0)
    assert said(2.1) == []


def test_retained_memory_and_unsteady_solo_runs_are_cautions(measured: Callable[..., Path]) -> None:
    good = summarize(measured(run_of(8, 0), run_of(8, 1)))
    assert not {"memory_not_returned", "unsteady_steps"} & {caution.kind for caution in good.cautions}
    behind = run_of(8, 1, (9.0, 2.5), after_bytes=PROGRAM + BASE + 20 * MB)
    cautions = {caution.kind: caution.text for caution in summarize(measured(run_of(8, 0), behind)).cautions}
    assert values_of(cautions["memory_not_returned"], "caution.left_behind") == {"size": 20 * MB, "rank": 8}
    assert values_of(cautions["unsteady_steps"], "caution.pace_spread") == {"rank": 8, "share": 0.25}


def test_memory_spike_at_the_start_is_separate_from_later_variation(measured: Callable[..., Path]) -> None:
    (part,) = summarize(measured(run_of(8, 0), run_of(8, 1))).ranks
    assert part.memory is not None
    base = (PROGRAM + BASE) / MB
    assert part.memory.start_spike == pytest.approx(18)
    assert (part.memory.later_mean, part.memory.later_std) == pytest.approx((base + 41, 1))
    assert (part.memory.min, part.memory.max) == pytest.approx((base, base + 60))
    assert part.memory.mean == pytest.approx(base + 35.5)
    flat, wavy = np.full(9, 1000.0), np.array([900.0, 1000.0] * 5)
    assert start_spike(np.array([1000.0, 1100.0]), flat) == 100
    assert start_spike(np.array([1005.0]), flat) is None
    assert start_spike(np.array([1100.0]), wavy) is None
    assert start_spike(np.array([]), flat) is None


def system_sample(seconds: float, rss: int, traffic: int | None) -> SystemSample:
    return SystemSample(
        seconds=seconds, rss_bytes=rss, cpu_percent=50.0, device_allocated_bytes=None, memory_traffic_bytes=traffic
    )


def test_process_memory_over_time_and_memory_traffic() -> None:
    assert process_part([]) is None
    rss = [900 * MB, *([500 * MB] * 19)]
    # the third reading is of another start of the machine, whose count began anew
    counts = [0, 2000, 10, 1010, None, *[None] * 15]
    part = process_part([system_sample(float(n), *pair) for n, pair in enumerate(zip(rss, counts, strict=True))])
    assert part is not None
    assert (part.rss_min, part.rss_max, part.rss_start_spike, part.rss_later_std) == (500, 900, 400, 0)
    assert part.traffic_bytes_per_second == pytest.approx((2000 + 1000) / 2)
    silent = process_part([system_sample(float(n), 5 * MB, None) for n in range(3)])
    assert silent is not None
    assert silent.traffic_bytes_per_second is None
    assert (part.traffic_text, silent.traffic_text) == (
        Message("costs.traffic", size=part.traffic_bytes_per_second), Message("costs.no_traffic"),
    )  # fmt: skip


def test_joint_cost_is_compared_with_solo_cost(measured: Callable[..., Path]) -> None:
    runs = [run_of(rank, number, (9.0, 2.0 + rank / 64)) for rank in (8, 64) for number in (0, 1)]
    joint = summarize(measured(*runs)).costs.joint
    assert joint.seconds == pytest.approx(80 * 0.3)  # the two trials share each step
    assert joint.alone_seconds == pytest.approx(80 * 2.125 + 80 * 3.0)
    # of each trial four evaluations of a second, and that of the base, which they share
    assert joint.evaluation_seconds == pytest.approx(2 * 4 + 1)
    assert joint.peak_rss_bytes is None


def gpu_sample(rank: int | None, used: int, **changes: Any) -> GpuSample:
    fields: dict[str, object] = {
        "seconds": 0.0, "rank": rank, "uuid": "GPU-a", "name": "Test L4", "memory_used_bytes": used,
        "memory_total_bytes": 24 * 10**9, "utilization_percent": 90, "memory_utilization_percent": 40,
        "power_watts": 70.0, "sm_clock_mhz": 2000, "memory_clock_mhz": 6000, "temperature_celsius": 60,
        "throttle_reasons": 0x5,
    }  # fmt: skip
    return GpuSample(**(fields | changes))  # type: ignore[arg-type]


def test_gpu_readings_are_those_of_the_solo_run(measured: Callable[..., Path]) -> None:
    runs = [
        run_of(rank, number, memory_method="allocator", reserved_peak_bytes=7 * 10**9)
        for rank in (8, 64)
        for number in (0, 1)
    ]
    gpus = (
        gpu_sample(None, 20 * 10**9),
        gpu_sample(8, 6 * 10**9),
        gpu_sample(8, 8 * 10**9, power_watts=None, temperature_celsius=66, throttle_reasons=None),
        gpu_sample(64, 9 * 10**9, memory_utilization_percent=60),
    )
    summary = summarize(measured(*runs, gpus=gpus))
    gpu = summary.ranks[0].gpu
    assert gpu is not None
    assert (gpu.name, gpu.readings, gpu.power_watts, gpu.temperature_celsius) == ("Test L4", 2, 70, 66)
    assert (gpu.memory_used_bytes, gpu.memory_used_max_bytes) == (7 * 10**9, 8 * 10**9)
    assert gpu.memory_used_percent == pytest.approx(100 * 7 / 24)
    assert gpu.throttle_reasons == ("power cap",)
    assert (gpu.allocated_bytes, gpu.peak_reserved_bytes) == (runs[1].held_bytes, 7 * 10**9)
    assert summary.costs.readings.bandwidth_rank == 64


def test_throttle_reasons_have_names_or_bits() -> None:
    assert throttle_reasons([0x1, 0x40, 0x2]) == ("application clocks", "hardware thermal slowdown")
    assert throttle_reasons([0x1000]) == ("reason 0x1000",)
    assert throttle_reasons([]) == ()
