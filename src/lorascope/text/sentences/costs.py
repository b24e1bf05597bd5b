"""Sentences about measured costs."""

from lorascope.text.sentences.plural import Plural

COSTS: dict[str, str | Plural] = {
    "caution.left_behind": "{size:bytes} after rank {rank}",
    "caution.memory_not_returned": (
        "Memory was not back at its base after ranks had run alone ({left:list}): peaks of ranks measured later may "
        "hold what earlier ones left."
    ),
    "caution.pace_spread": "rank {rank} by {share:.0%}",
    "caution.unsteady_steps": (
        "The steps that each rank took alone, on the same rows, differed in time between its turns ({unlike:list}): "
        "the machine did other things as well, or its pace changed. Smaller differences between ranks are noise."
    ),
    "caution.larger_faster": (
        "Rank {larger} took {fast:seconds} a step and rank {smaller}, which computes less, {slow:seconds}: the "
        "machine's pace changed between their turns, and their times cannot be compared."
    ),
    "costs.too_few_steps": (
        "Too few steps were measured to say which rank's steps vary least; --cost full measures more."
    ),
    "costs.steadiest_time_unknown": (
        "Which rank's steps vary least cannot be told: one rank's turns differ by {apart:.1%} themselves."
    ),
    "costs.steadiest_time": (
        "Rank {rank} has the steadiest steps: the middle half of them lies within {spread:.1%} of their median."
    ),
    "costs.steadiest_memory": (
        "Rank {rank} has the steadiest memory: after the warm-up it varies by {spread:.1%} of its mean."
    ),
    "costs.bandwidth_rank": "Rank {rank} leans most on memory bandwidth: {share:.1%} of its step.",
    "costs.bandwidth_alike": "The ranks lean on memory bandwidth alike.",
    "costs.bandwidth_unknown": (
        "Which rank leans most on memory bandwidth cannot be told: one rank's turns differ by {apart:.1%} in time."
    ),
    "costs.arithmetic": (
        "Rank {rank} is held up by arithmetic: at the rate of a large product its matrix products take "
        "{arithmetic:.0%} of the step, moving their operands {bandwidth:.0%}."
    ),
    "costs.bandwidth": (
        "Rank {rank} is held up by memory bandwidth: moving the operands of its matrix products takes "
        "{bandwidth:.0%} of the step, their arithmetic {arithmetic:.0%}."
    ),
    "costs.overhead": (
        "Rank {rank} is held up by overhead: at this machine's best rates its matrix products would take "
        "{arithmetic:.0%} of the step and moving their operands {bandwidth:.0%}."
    ),
    "costs.no_traffic": "This machine offers its users no reading of memory bandwidth.",
    "costs.traffic": "The whole machine moved {size:bytes} a second between processors and memory.",
}
