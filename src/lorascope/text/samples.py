"""Answers to held-out prompts as cards, with the words marked in which ranks differ."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from lorascope.analysis.samples import ComparedAnswers, RankAnswer
from lorascope.text.language import tr
from lorascope.text.shown_rows import shown_text

_WORDS = re.compile(r"\w+|\s+|[^\w\s]")
Pieces = tuple[tuple[str, bool], ...]
"""Text in pieces, each with True where it differs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerCard:
    """One answer, or the true one."""

    title: str
    rank: int | None
    """For its colour; None for the base and the true answer."""
    pieces: Pieces
    """Empty where the text is that of another card, which the note names."""
    note: str

    @property
    def in_brackets(self) -> str:
        """The text with differences in [[ ]]."""
        return "".join(f"[[{piece}]]" if differs else piece for piece, differs in self.pieces)


@dataclass(frozen=True, kw_only=True, slots=True)
class AnsweredPrompt:
    """A prompt and its answers."""

    title: str
    prompt: str
    cards: tuple[AnswerCard, ...]
    """The true answer first, then the base and the ranks."""


def answered_prompt(compared: ComparedAnswers) -> AnsweredPrompt:
    """Write a prompt with its answers; ranks are marked where they differ from the smallest one, one rank alone from
    the base.
    """
    prompt, answers = compared.prompt, compared.answers
    of_ranks = [one for one in answers if one.arm is not None]
    reference = of_ranks[0] if len(of_ranks) > 1 else answers[0]
    title = tr("Held-out row {row}", row=prompt.row)
    if prompt.continued:
        title = tr("Held-out row {row}, continued from its middle", row=prompt.row)
    truth_title = tr("How it goes on") if prompt.continued else tr("True answer")
    truth = AnswerCard(title=truth_title, rank=None, pieces=((shown_text(prompt.truth), False),), note="")
    cards = [_card(one, reference, answers[:place], prompt.truth) for place, one in enumerate(answers)]
    return AnsweredPrompt(title=title, prompt=shown_text(prompt.prompt), cards=(truth, *cards))


def answer_legend(compared: Sequence[ComparedAnswers]) -> str:
    """Say how the answers were made and what is marked."""
    some = compared[0].answers
    first = some[0].answer
    how = (
        tr("Answers of at most {count} tokens, the likeliest token each time.", count=first.max_new_tokens)
        if first.temperature == 0
        else tr(
            "Answers of at most {count} tokens, drawn at temperature {temperature} with the same random numbers.",
            count=first.max_new_tokens,
            temperature=f"{first.temperature:g}",
        )
    )
    several = sum(one.arm is not None for one in some) > 1
    marked = (
        tr("Marked: words that differ from those of the smallest rank.")
        if several
        else tr("Marked: words that differ from those of the base.")
    )
    few = tr("A handful of answers shows what a rank writes, not which rank is better: held-out loss says that.")
    return f"{how} {marked} {few}"


def _card(one: RankAnswer, reference: RankAnswer, before: Sequence[RankAnswer], truth: str) -> AnswerCard:
    text = one.answer.text
    same = next((other for other in before if other.answer.text == text and text), None)
    facts = [
        tr("the true answer") if text.split() == truth.split() else "",
        tr("same text as {name}", name=_name(same)) if same else "",
        tr("no text") if not text else "",
        "" if one.answer.ended else tr("cut after {count} tokens", count=one.answer.tokens),
    ]
    pieces: Pieces = () if same or not text else ((shown_text(text), False),)
    if pieces and one.arm is not None and one is not reference:
        pieces = differing_words(shown_text(text), shown_text(reference.answer.text))
    rank = one.arm[1] if one.arm else None
    return AnswerCard(title=_name(one), rank=rank, pieces=pieces, note="; ".join(filter(None, facts)))


def _name(one: RankAnswer) -> str:
    if one.arm is None:
        return tr("base")
    targets, rank = one.arm
    return tr("rank {rank} on {targets}", rank=rank, targets=targets) if targets else tr("rank {rank}", rank=rank)


def differing_words(text: str, reference: str) -> Pieces:
    """Return the pieces of a text, with True for words that the reference does not have in their place."""
    words, others = _WORDS.findall(text), _WORDS.findall(reference)
    matcher = SequenceMatcher(None, others, words, autojunk=False)
    found = ((kind != "equal", "".join(words[first:stop])) for kind, _, _, first, stop in matcher.get_opcodes())
    return tuple((piece, differs) for differs, piece in found if piece)
