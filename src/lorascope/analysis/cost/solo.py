"""Cost of each rank alone: time and work of its steps, and their bottleneck."""

import math
from collections.abc import Sequence
from itertools import chain
from statistics import median

import numpy as np

from lorascope.analysis.cost.gpu import gpu_section
from lorascope.analysis.cost.memory import memory_section, split_of
from lorascope.analysis.cost.schema import Bottleneck, CostSection
from lorascope.analysis.cost.solo_runs import heaviest_run, measured_seconds, on_one_base, runs_by_rank
from lorascope.analysis.study_data import StudyData
from lorascope.analysis.summary import RankSection
from lorascope.records import MachineRates, SoloRun

HALF = 0.5
"""Share of a step from which arithmetic or memory traffic is its bottleneck."""


def with_costs(data: StudyData, ranks: Sequence[RankSection]) -> tuple[RankSection, ...]:
    """Add the findings of its solo runs to each rank."""
    runs = on_one_base(runs_by_rank(data.solo_runs))
    return tuple(_with_cost(data, part, runs[part.rank]) if part.rank in runs else part for part in ranks)


def _with_cost(data: StudyData, part: RankSection, runs: Sequence[SoloRun]) -> RankSection:
    found = {
        "cost": cost_section(data, runs),
        "memory": memory_section(runs),
        "gpu": gpu_section(data.gpu_samples, heaviest_run(runs)),
    }
    return part.model_copy(update=found)


def cost_section(data: StudyData, runs: Sequence[SoloRun]) -> CostSection:
    """Summarize one rank's runs."""
    last, seconds = heaviest_run(runs), measured_seconds(runs)
    flops, moved = runs[0].product_flops, runs[0].product_bytes
    arithmetic, bandwidth = shares(flops, moved, median(seconds), data.machine_rates)
    return CostSection(
        turns=len(runs),
        measured_steps=len(seconds),
        turn_step_seconds=tuple(median(run.measured_seconds) for run in runs),
        step_seconds_spread=float(np.subtract(*np.percentile(seconds, [75, 25]))) if len(seconds) > 1 else None,
        warmup_seconds=median(chain.from_iterable(run.step_seconds[: run.warmup_steps] for run in runs)),
        tokens_per_step=last.step_tokens[-1],
        cpu_utilization=_cpu_utilization(data, runs),
        memory_method=last.memory_method,
        heaviest_tokens=last.heaviest_tokens,
        split=split_of(data, last) if last.heaviest_tokens is not None else (),
        left_behind_bytes=last.after_bytes - last.base_bytes,
        flops_per_step=flops,
        bytes_per_step=moved,
        flops_per_byte=flops / moved if flops is not None and moved else None,
        arithmetic_share=arithmetic,
        bandwidth_share=bandwidth,
        bottleneck=bottleneck(arithmetic, bandwidth),
    )


def shares(
    flops: int | None, moved: int | None, step_seconds: float, rates: MachineRates | None
) -> tuple[float | None, float | None]:
    """Return the shares of a step that arithmetic and memory traffic take at the device's rates; None if unknown."""
    if flops is None or moved is None or rates is None:
        return None, None
    return flops / rates.flops_per_second / step_seconds, moved / rates.bytes_per_second / step_seconds


def bottleneck(arithmetic: float | None, bandwidth: float | None) -> Bottleneck | None:
    """Return the larger share if it is at least half of the step, else overhead."""
    if arithmetic is None or bandwidth is None:
        return None
    if max(arithmetic, bandwidth) < HALF:
        return "overhead"
    return "arithmetic" if arithmetic >= bandwidth else "bandwidth"


def _cpu_utilization(data: StudyData, runs: Sequence[SoloRun]) -> float | None:
    if not data.environments:
        return None
    seconds = math.fsum(measured_seconds(runs))
    return math.fsum(run.cpu_seconds for run in runs) / seconds / data.environments[-1].cpu_cores
