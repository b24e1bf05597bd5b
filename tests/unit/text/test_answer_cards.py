"""Answers side by side: what is shown of them, and what is marked."""

from lorascope.analysis.samples import ComparedAnswers, RankAnswer
from lorascope.records import BASE_MODEL, SampleAnswer, SamplePrompt
from lorascope.text.samples import AnsweredPrompt, answer_legend, answered_prompt, differing_words

PROMPT = SamplePrompt(
    place=1, row=7, prompt="add:", truth=" the sum\n", prompt_tokens=2, truth_tokens=3, continued=False
)


def answer(rank: int | None, text: str, *, ended: bool = True, temperature: float = 0.0) -> RankAnswer:
    record = SampleAnswer(
        trial_id=f"r{rank}" if rank else BASE_MODEL, place=1, text=text, tokens=24, ended=ended, max_new_tokens=24,
        temperature=temperature, seconds=0.1, error=None,
    )  # fmt: skip
    return RankAnswer(arm=("", rank) if rank else None, answer=record)


def shown(*answers: RankAnswer) -> AnsweredPrompt:
    return answered_prompt(ComparedAnswers(prompt=PROMPT, answers=answers))


def test_ranks_are_marked_where_they_differ_from_the_smallest() -> None:
    found = shown(answer(None, "no sum"), answer(8, "the sum of a"), answer(64, "the sum of b"))
    assert found.title == "Held-out row 7"
    assert [(card.title, card.rank, card.in_brackets) for card in found.cards] == [
        ("True answer", None, " the sum\n"),
        ("base", None, "no sum"),
        ("rank 8", 8, "the sum of a"),
        ("rank 64", 64, "the sum of [[b]]"),
    ]


def test_one_rank_is_marked_where_it_differs_from_the_base() -> None:
    found = shown(answer(None, "no sum"), answer(8, "the sum"))
    assert found.cards[-1].in_brackets == "[[the]] sum"


def test_a_text_is_written_once_and_notes_say_the_rest() -> None:
    found = shown(answer(None, "", ended=True), answer(8, "the sum"), answer(64, "the sum", ended=False))
    _, base, first, second = found.cards
    assert (base.pieces, base.note) == ((), "no text")
    assert (first.in_brackets, first.note) == ("the sum", "the true answer")
    assert (second.pieces, second.note) == ((), "the true answer; same text as rank 8; cut after 24 tokens")


def test_sets_of_target_modules_are_named() -> None:
    record = answer(8, "a").answer
    found = shown(RankAnswer(arm=("qv", 8), answer=record), RankAnswer(arm=("all", 8), answer=record))
    assert [card.title for card in found.cards[1:]] == ["rank 8 on qv", "rank 8 on all"]
    assert found.cards[2].note == "same text as rank 8 on qv"


def test_legend_says_how_answers_were_made() -> None:
    greedy = ComparedAnswers(prompt=PROMPT, answers=(answer(8, "a"), answer(64, "b")))
    drawn = ComparedAnswers(prompt=PROMPT, answers=(answer(8, "a", temperature=0.7),))
    assert answer_legend([greedy]).startswith("Answers of at most 24 tokens, the likeliest token each time. Marked:")
    assert "those of the smallest rank" in answer_legend([greedy])
    assert "drawn at temperature 0.7" in answer_legend([drawn])
    assert "those of the base" in answer_legend([drawn])


def test_differing_words_join_to_the_text() -> None:
    text, reference = "if x == 1:\n    return <b>", "if y == 1:\n    return <i>, 2"
    pieces = differing_words(text, reference)
    assert "".join(piece for piece, _ in pieces) == text
    assert [piece for piece, differs in pieces if differs] == ["x", "b"]
    assert differing_words("", "a") == ()
    assert differing_words("a b", "a b") == (("a b", False),)
