"""Words for the looks of a sequential study."""

from lorascope.analysis.looks import LookSection
from lorascope.analysis.summary import SetSummary
from lorascope.message import Message
from lorascope.records import LookRecord
from lorascope.text.language import tr
from lorascope.text.numbers import format_seconds
from lorascope.text.say import say
from lorascope.text.tables.table import Table, make_table

_ENDS = {"decided": "look.decided", "steps": "look.steps", "exhausted": "look.exhausted"}


def describe_look(look: LookRecord | LookSection) -> str:
    """Return what a look compared, and what follows."""
    return say(Message("look.taken", look=look.look, seeds=len(look.seeds), rows=look.rows, follows=_follows(look)))


def _follows(look: LookRecord | LookSection) -> Message:
    if look.next == "rows":
        return Message("look.rows", ranks=look.next_ranks, rows=look.next_value, seconds=look.next_seconds)
    if look.next == "seed":
        return Message("look.seed", ranks=look.next_ranks, seed=look.next_value, seconds=look.next_seconds)
    if look.next == "budget":
        return Message("look.budget", seconds=look.next_seconds)
    return Message(_ENDS[look.next])


def over_looks(summary: SetSummary) -> str:
    """Write that intervals hold over all looks; empty for a study without any."""
    return tr("95% intervals hold over all looks ({looks}).", looks=len(summary.looks)) if summary.looks else ""


def look_table(summary: SetSummary) -> Table:
    """Show every look; no rows for a study without any."""
    return make_table(
        summary.looks,
        [None] * len(summary.looks),
        (tr("look"), lambda look: str(look.look)),
        (tr("ranks compared"), lambda look: ", ".join(map(str, look.ranks))),
        (tr("seeds"), lambda look: str(len(look.seeds))),
        (tr("held-out rows"), lambda look: f"{look.rows:,}"),
        (tr("information"), lambda look: f"{look.information:.0%}"),
        (tr("chance of error spent"), lambda look: f"{look.spent:.0%}"),
        (tr("took"), lambda look: format_seconds(look.seconds)),
        (tr("what followed"), lambda look: say(_follows(look))),
        note=tr(
            "Information is a share of the most that the study can have. All looks together use at most the 5% chance "
            "of error; the share spent grows with its cube."
        ),
    )
