"""Costs of the whole run: joint steps, the process over time, the machine's rates."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from lorascope.analysis.cost.memory import growth_sections, start_spike
from lorascope.analysis.cost.readings import read_costs
from lorascope.analysis.cost.schema import ActivitySection, CostsSection, JointSection, ProcessSection
from lorascope.analysis.cost.solo_runs import pace_spread, runs_by_rank
from lorascope.analysis.estimates.joint_steps import evaluation_seconds, joint_steps
from lorascope.analysis.estimates.wall_time import wall_share
from lorascope.analysis.study_data import StudyData
from lorascope.analysis.summary import RankSection, TrialSection
from lorascope.message import Message
from lorascope.records import ActivityRecord, SystemSample
from lorascope.search.work import Activity, Overhead
from lorascope.units import to_megabytes

_ORDER: tuple[Activity | Overhead, ...] = (
    "preparation",
    "predictions",
    "solo_runs",
    "training",
    "evaluation",
    "looks",
    "further_rows",
    "spectra",
    "forgetting_text",
    "truncation",
    "samples",
    "metrics",
    "lm_eval",
    "proof",
)


def costs_part(data: StudyData, ranks: Sequence[RankSection], trials: Sequence[TrialSection]) -> CostsSection:
    """Compare the ranks' costs and add those of the whole run."""
    rates = data.machine_rates
    runs = runs_by_rank(data.solo_runs).values()
    apart = math.inf if any(len(found) < 2 for found in runs) else max(map(pace_spread, runs), default=math.inf)
    return CostsSection(
        machine_flops_per_second=rates.flops_per_second if rates else None,
        machine_bytes_per_second=rates.bytes_per_second if rates else None,
        growth=growth_sections(data),
        joint=joint_part(data, ranks, trials),
        process=process_part(data.samples),
        readings=read_costs(ranks, apart),
    )


def joint_part(data: StudyData, ranks: Sequence[RankSection], trials: Sequence[TrialSection]) -> JointSection | None:
    """Add up the joint steps, each counted once for all its trials, in wall time; None before the first one.

    With several sets of target modules the steps are those of all sets, and nothing compares them with a set alone.
    """
    steps = joint_steps(data.steps.values())
    if not len(steps.seconds):
        return None
    further = math.fsum(record.seconds for records in data.further.values() for record in records)
    alone = {part.rank: part.step_seconds for part in ranks}
    each = [(trial.steps, alone.get(trial.rank)) for trial in trials]
    share = wall_share(data)
    return JointSection(
        seconds=share * math.fsum(steps.seconds.tolist()),
        evaluation_seconds=share * evaluation_seconds(data.evaluations.values()) + further,
        alone_seconds=(
            math.fsum(count * seconds for count, seconds in each if seconds is not None)
            if not data.targets and all(seconds is not None for _, seconds in each)
            else None
        ),
        peak_rss_bytes=max((sample.rss_bytes for sample in data.samples), default=None),
    )


def time_book(activities: Sequence[ActivityRecord]) -> tuple[ActivitySection, ...]:
    """Return the activities that took time, in the order of a run."""
    found = {one.name: one for one in activities if one.spent_seconds}
    return tuple(
        ActivitySection(
            name=name, predicted_seconds=found[name].predicted_seconds, spent_seconds=found[name].spent_seconds
        )
        for name in _ORDER
        if name in found
    )


def process_part(samples: Sequence[SystemSample]) -> ProcessSection | None:
    """Summarize the readings of the process; the first tenth of them is the start."""
    if not samples:
        return None
    rss = np.array([sample.rss_bytes for sample in samples], dtype=np.float64)
    first, later = np.split(rss, [len(rss) // 10])
    spike, traffic = start_spike(first, later), _traffic(samples)
    return ProcessSection(
        readings=len(samples),
        rss_mean=to_megabytes(float(rss.mean())),
        rss_std=to_megabytes(float(rss.std())),
        rss_min=to_megabytes(float(rss.min())),
        rss_max=to_megabytes(float(rss.max())),
        rss_start_spike=to_megabytes(spike) if spike is not None else None,
        rss_later_std=to_megabytes(float(later.std())),
        cpu_percent=float(np.mean([sample.cpu_percent for sample in samples])),
        traffic_bytes_per_second=traffic,
        traffic_text=Message("costs.no_traffic") if traffic is None else Message("costs.traffic", size=traffic),
    )


def _traffic(samples: Sequence[SystemSample]) -> float | None:
    """Divide the bytes moved between readings by the time between them, except where a count was reset."""
    moved = seconds = 0.0
    for before, after in pairwise(samples):
        if before.memory_traffic_bytes is None or after.memory_traffic_bytes is None:
            continue
        if after.memory_traffic_bytes >= before.memory_traffic_bytes and after.seconds > before.seconds:
            moved += after.memory_traffic_bytes - before.memory_traffic_bytes
            seconds += after.seconds - before.seconds
    return moved / seconds if seconds else None
