"""Cautions about measured times and memory."""

from itertools import pairwise
from statistics import median

from lorascope.analysis.cost.solo_runs import measured_seconds, pace_spread, runs_by_rank
from lorascope.analysis.findings import Findings
from lorascope.analysis.verdict.schema import CautionSection
from lorascope.message import Message
from lorascope.units import MEGABYTE

_LEFT_BEHIND_BYTES = 16 * MEGABYTE
_LEFT_BEHIND_SHARE = 0.05
"""Memory left behind, absolute and as a share of the rank's own, that allocators may keep."""
_UNSTEADY = 0.1
"""Solo runs of one rank on one batch differ by less on an idle machine."""


def memory_not_returned(findings: Findings) -> CautionSection | None:
    """Warn where memory was not back at its base after a rank's last solo run: the next ranks' peaks hold it too."""
    left = []
    for rank, runs in runs_by_rank(findings.data.solo_runs).items():
        last = runs[-1]
        behind, took = last.after_bytes - last.base_bytes, last.peak_bytes - last.base_bytes
        if behind > max(_LEFT_BEHIND_BYTES, _LEFT_BEHIND_SHARE * took):
            left.append(Message("caution.left_behind", size=behind, rank=rank))
    if not left:
        return None
    return CautionSection(kind="memory_not_returned", text=(Message("caution.memory_not_returned", left=tuple(left)),))


def unsteady_steps(findings: Findings) -> CautionSection | None:
    """Warn where solo runs of a rank on one batch differed in pace, or a larger rank was faster than a smaller one."""
    by_rank = runs_by_rank(findings.data.solo_runs)
    spreads = {rank: pace_spread(runs) for rank, runs in by_rank.items()}
    unlike = tuple(
        Message("caution.pace_spread", rank=rank, share=share) for rank, share in spreads.items() if share > _UNSTEADY
    )
    found = [Message("caution.unsteady_steps", unlike=unlike)] if unlike else []
    seconds = {rank: median(measured_seconds(runs)) for rank, runs in by_rank.items()}
    found += [
        Message("caution.larger_faster", larger=larger, smaller=smaller, fast=seconds[larger], slow=seconds[smaller])
        for smaller, larger in pairwise(seconds)
        if seconds[larger] * (1 + _UNSTEADY) < seconds[smaller]
    ]
    return CautionSection(kind="unsteady_steps", text=tuple(found)) if found else None
