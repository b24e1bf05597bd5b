"""The answer as it is read: status, sentence, and a line for each need."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lorascope.analysis.summary import RankSection, SetSummary, StudySummary
from lorascope.analysis.verdict.schema import AdviceSection, AnswerSection
from lorascope.text.language import tr
from lorascope.text.numbers import format_seconds, fraction
from lorascope.text.say import say
from lorascope.text.tables.overview import unsteady_mark
from lorascope.text.tables.ranks import excess_cell
from lorascope.text.tables.table import optional
from lorascope.units import format_bytes

UNLIKELY = 0.2
"""A chance up to here is called unlikely."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """What one need names."""

    title: str
    rank: int | None
    measure: str
    """The number that the rank is named for; short."""
    fact: str
    """The same, and what its loss is above the lowest."""
    reason: str
    """The same as a sentence, with the interval."""
    badge: str
    """How sure it is that the rank's loss is within the tolerance of the lowest; empty where nothing says."""


def status_word(answer: AnswerSection) -> str:
    """Name the status, for a badge."""
    words = {
        "clear": tr("Clear"),
        "tie": tr("Tie"),
        "undecided": tr("Undecided"),
        "too_early": tr("Too early"),
        "one_rank": tr("One rank"),
        "no_answer": tr("No answer"),
    }
    return words[answer.status]


def headline(summary: SetSummary) -> str:
    """Write the answer, with the name of the set where there are several: status, sentence, what to do for now."""
    answer = summary.answer
    return of_set(summary, " ".join((f"{status_word(answer)}.", say(answer.text), *map(say, answer.now))))


def of_set(summary: SetSummary, text: str) -> str:
    """Put the name of the set of target modules before a text, where the study has several."""
    return f"{summary.study.targets}: {text}" if summary.study.targets else text


def needs(summary: StudySummary) -> Sequence[Need]:
    """Return the need of the lowest loss, of the best value, of time and of memory."""
    advice = summary.recommendation
    titled = (
        (tr("Lowest loss"), advice.loss, _loss),
        (tr("Best value"), advice.value, _value),
        (tr("Fastest"), advice.time, _time),
        (tr("Least memory"), advice.memory, _memory),
    )
    parts = {part.rank: part for part in summary.ranks}
    return [
        Need(
            title=title,
            rank=found.rank,
            measure=write(parts[found.rank], summary) if found.rank is not None else "",
            fact=_fact(parts[found.rank], write, summary) if found.rank is not None else "",
            reason=say(found.reason),
            badge=badge(found),
        )
        for title, found, write in titled
    ]


def _fact(part: RankSection, write: Callable[[RankSection, StudySummary], str], summary: StudySummary) -> str:
    above = part.excess_loss
    loss = tr("loss {excess}", excess=excess_cell(part)) if above else ""
    return ", ".join(filter(None, (write(part, summary), loss)))


def _loss(part: RankSection, summary: StudySummary) -> str:
    cut = summary.truncation
    found = optional(part.eval_loss, "{:.3f}".format)
    if cut is not None and cut.rank == part.rank and cut.adequate_rank not in (None, part.rank):
        return tr("{loss}, the same truncated to rank {rank}", loss=found, rank=cut.adequate_rank)
    return found


def _value(part: RankSection, summary: StudySummary) -> str:
    largest = summary.ranks[-1].rank
    if part.rank == largest:
        return optional(part.eval_loss, "{:.3f}".format)
    return tr("{share} the size of rank {rank}", share=fraction(part.rank / largest), rank=largest)


def _time(part: RankSection, summary: StudySummary) -> str:
    return tr("{time} a step", time=optional(part.step_seconds, format_seconds) + unsteady_mark(summary))


def _memory(part: RankSection, summary: StudySummary) -> str:
    most = summary.ranks[-1].peak_memory_bytes
    if most is None or part.peak_memory_bytes is None or part.peak_memory_bytes >= most:
        return ""
    return tr(
        "{size} less than rank {rank}", size=format_bytes(most - part.peak_memory_bytes), rank=summary.ranks[-1].rank
    )


def badge(advice: AdviceSection) -> str:
    """Name the evidence, with its probability where nothing is proven."""
    words = {"proven": tr("proven"), "likely": tr("likely"), "unproven": tr("unproven")}
    if advice.evidence is None:
        return ""
    if advice.evidence == "proven" or advice.chance is None:
        return words[advice.evidence]
    word = tr("unlikely") if advice.chance <= UNLIKELY else words[advice.evidence]
    return f"{word}, {advice.chance:.0%}"
