"""Words for the looks of a sequential study."""

from lorascope.message import Message
from lorascope.records import LookRecord
from lorascope.text.say import say

_ENDS = {"decided": "look.decided", "steps": "look.steps", "exhausted": "look.exhausted"}


def describe_look(look: LookRecord) -> str:
    """Return what a look compared, and what follows."""
    return say(Message("look.taken", look=look.look, seeds=len(look.seeds), rows=look.rows, follows=_follows(look)))


def _follows(look: LookRecord) -> Message:
    if look.next == "rows":
        return Message("look.rows", ranks=look.next_ranks, rows=look.next_value, seconds=look.next_seconds)
    if look.next == "seed":
        return Message("look.seed", ranks=look.next_ranks, seed=look.next_value, seconds=look.next_seconds)
    if look.next == "budget":
        return Message("look.budget", seconds=look.next_seconds)
    return Message(_ENDS[look.next])
