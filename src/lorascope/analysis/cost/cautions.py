"""Reasons to read times and memory with care."""

from itertools import pairwise
from statistics import median

from lorascope.analysis.cost.solo_runs import measured_seconds, pace_spread, runs_by_rank
from lorascope.analysis.findings import Findings
from lorascope.analysis.verdict.schema import CautionSection
from lorascope.message import Message
from lorascope.text.language import tr
from lorascope.text.numbers import format_seconds
from lorascope.units import MEGABYTE, format_bytes

_LEFT_BEHIND_BYTES = 16 * MEGABYTE
_LEFT_BEHIND_SHARE = 0.05
"""Less than these, of what the rank took, is what allocators keep in passing."""
_UNSTEADY = 0.1
"""Solo runs of one rank on one batch differ by less on an idle machine."""


def memory_not_returned(findings: Findings) -> CautionSection | None:
    """Say when memory was not back at its base after a rank's last solo run: the next ranks' peaks hold it too."""
    left = []
    for rank, runs in runs_by_rank(findings.data.solo_runs).items():
        last = runs[-1]
        behind, took = last.after_bytes - last.base_bytes, last.peak_bytes - last.base_bytes
        if behind > max(_LEFT_BEHIND_BYTES, _LEFT_BEHIND_SHARE * took):
            left.append(tr("{size} after rank {rank}", size=format_bytes(behind), rank=rank))
    if not left:
        return None
    text = tr(
        "Memory was not back at its base after ranks had run alone ({left}): peaks of ranks measured later may hold "
        "what earlier ones left.",
        left=", ".join(left),
    )
    return CautionSection(kind="memory_not_returned", text=(Message("verbatim", text=text),))


def unsteady_steps(findings: Findings) -> CautionSection | None:
    """Say when solo runs of one rank on the same batch took unlike times, or a larger rank less than a smaller one."""
    by_rank = runs_by_rank(findings.data.solo_runs)
    apart = {rank: pace_spread(runs) for rank, runs in by_rank.items()}
    unlike = [
        tr("rank {rank} by {share:.0%}", rank=rank, share=share) for rank, share in apart.items() if share > _UNSTEADY
    ]
    parts = []
    if unlike:
        text = tr(
            "The steps that each rank took alone, on the same rows, differed in time between its turns ({unlike}): the "
            "machine did other things as well, or its pace changed. Times of ranks that differ by less say nothing.",
            unlike=", ".join(unlike),
        )
        parts.append(text)
    seconds = {rank: median(measured_seconds(runs)) for rank, runs in by_rank.items()}
    parts += [
        tr(
            "Rank {larger} took {quick} a step and rank {smaller}, which computes less, {slow}: the machine's pace "
            "changed between their turns, and their times cannot be compared.",
            larger=larger,
            smaller=smaller,
            quick=format_seconds(seconds[larger]),
            slow=format_seconds(seconds[smaller]),
        )
        for smaller, larger in pairwise(seconds)
        if seconds[larger] * (1 + _UNSTEADY) < seconds[smaller]
    ]
    return CautionSection(kind="unsteady_steps", text=(Message("verbatim", text=" ".join(parts)),)) if parts else None
