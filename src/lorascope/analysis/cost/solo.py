"""Each rank alone: how long its steps took, what they had to do, and what held them up."""

import math
from collections.abc import Sequence

import numpy as np

from lorascope.analysis.cost.gpu import gpu_part
from lorascope.analysis.cost.memory import memory_part, split_of
from lorascope.analysis.cost.schema import Bottleneck, CostSection
from lorascope.analysis.cost.solo_runs import heavy_turn, measured_seconds, on_one_base, runs_by_rank, warmup_seconds
from lorascope.analysis.study_data import StudyData
from lorascope.analysis.summary import RankSection
from lorascope.records import MachineRates, SoloRun

HALF = 0.5
"""Of a step: what takes as much is its bottleneck."""


def with_costs(data: StudyData, ranks: Sequence[RankSection]) -> tuple[RankSection, ...]:
    """Add to each rank what its turns alone say."""
    turns = on_one_base(runs_by_rank(data.solo_runs))
    return tuple(_with_cost(data, part, turns[part.rank]) if part.rank in turns else part for part in ranks)


def _with_cost(data: StudyData, part: RankSection, turns: Sequence[SoloRun]) -> RankSection:
    alike = [turn for turn in turns if turn.heaviest_tokens is None] or turns
    found = {
        "cost": cost_part(data, turns),
        "memory": memory_part(
            [turn.samples_bytes for turn in turns], [(turn.samples_bytes, turn.warmup_samples) for turn in alike]
        ),
        "gpu": gpu_part(data.gpu_samples, heavy_turn(turns)),
    }
    return part.model_copy(update=found)


def cost_part(data: StudyData, turns: Sequence[SoloRun]) -> CostSection:
    """Read one rank's turns."""
    last, seconds = heavy_turn(turns), measured_seconds(turns)
    heavy = next((turn for turn in reversed(turns) if turn.heaviest_tokens is not None), None)
    flops, moved = turns[0].product_flops, turns[0].product_bytes
    median = float(np.median(seconds))
    arithmetic, bandwidth = shares(flops, moved, median, data.machine_rates)
    return CostSection(
        turns=len(turns),
        measured_steps=len(seconds),
        turn_step_seconds=tuple(float(np.median(measured_seconds([turn]))) for turn in turns),
        step_seconds_spread=float(np.subtract(*np.percentile(seconds, [75, 25]))) if len(seconds) > 1 else None,
        warmup_seconds=float(np.median(warmup_seconds(turns))),
        tokens_per_step=last.step_tokens[-1],
        cpu_utilization=_cpu_utilization(data, turns),
        memory_method=last.memory_method,
        heaviest_tokens=heavy.heaviest_tokens if heavy else None,
        split=split_of(data, heavy) if heavy else (),
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
    """Return what part of a step arithmetic and memory traffic need at the device's rates; None where not known."""
    if flops is None or moved is None or rates is None or step_seconds <= 0:
        return None, None
    return flops / rates.flops_per_second / step_seconds, moved / rates.bytes_per_second / step_seconds


def bottleneck(arithmetic: float | None, bandwidth: float | None) -> Bottleneck | None:
    """Name what takes half of the step or more; overhead where neither does."""
    if arithmetic is None or bandwidth is None:
        return None
    if max(arithmetic, bandwidth) < HALF:
        return "overhead"
    return "arithmetic" if arithmetic >= bandwidth else "bandwidth"


def _cpu_utilization(data: StudyData, turns: Sequence[SoloRun]) -> float | None:
    seconds = math.fsum(measured_seconds(turns))
    if not data.environments or seconds <= 0:
        return None
    return math.fsum(turn.cpu_seconds for turn in turns) / seconds / data.environments[-1].cpu_cores
