"""Reasons to read times and memory with care."""

from lorascope.analysis.cost_turns import paces_apart, training_peak, turns_by_rank
from lorascope.analysis.findings import Findings
from lorascope.analysis.summary import CautionPart
from lorascope.language import tr
from lorascope.units import MEGABYTE, format_bytes

_LEFT_BEHIND_BYTES = 16 * MEGABYTE
_LEFT_BEHIND_SHARE = 0.05
"""Less than these, of what the rank took, is what allocators keep in passing."""
_UNSTEADY = 0.1
"""Turns of one rank on one batch differ by less on a machine that does nothing else."""


def memory_not_returned(findings: Findings) -> CautionPart | None:
    """Say when memory was not back at its base after a rank's last turn: the next ranks' peaks hold it too."""
    left = []
    for rank, turns in turns_by_rank(findings.data.cost_turns).items():
        last = turns[-1]
        behind, took = last.after_bytes - last.base_bytes, training_peak(last) - last.base_bytes
        if behind > max(_LEFT_BEHIND_BYTES, _LEFT_BEHIND_SHARE * took):
            left.append(tr("{size} after rank {rank}", size=format_bytes(behind), rank=rank))
    if not left:
        return None
    text = tr(
        "Memory was not back at its base after ranks had run alone ({left}): peaks of ranks measured later may hold "
        "what earlier ones left.",
        left=", ".join(left),
    )
    return CautionPart(kind="memory_not_returned", text=text)


def unsteady_steps(findings: Findings) -> CautionPart | None:
    """Say when turns of one rank on the same batch took unlike times."""
    unlike = []
    for rank, turns in turns_by_rank(findings.data.cost_turns).items():
        share = paces_apart(turns)
        if share > _UNSTEADY:
            unlike.append(tr("rank {rank} by {share:.0%}", rank=rank, share=share))
    if not unlike:
        return None
    text = tr(
        "The steps that each rank took alone, on the same rows, differed in time between its turns ({unlike}): the "
        "machine did other things as well, or its pace changed. Times of ranks that differ by less say nothing.",
        unlike=", ".join(unlike),
    )
    return CautionPart(kind="unsteady_steps", text=text)
