"""The answer in one sentence, for every kind of outcome."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lorascope.analysis.adapters.schema import TruncationSection
from lorascope.analysis.summarize import summarize, summarize_data
from lorascope.analysis.summary import StudySummary
from lorascope.analysis.verdict.answer import truncated_rank
from lorascope.records import TrialOutcome
from lorascope.spec.schema import StudySpec
from lorascope.text.say import say
from lorascope.text.tables.advice import headline
from made_up_studies import Truth, studies
from verdict_simulation import scenarios

MakeStudy = Callable[..., Path]
MOST_WORDS = 20


def made_up(**changes: Any) -> StudySummary:
    """Return the summary of a study of 8, 64 and 256 over three seeds."""
    fields: dict[str, Any] = {"floors": {8: 1.03, 64: 1.0, 256: 1.0}, "seeds": 3, "rows": 200} | changes
    (study,) = studies(Truth(**fields), 1, 17)
    return summarize_data(study.data)


def preferring(preference: str) -> StudySummary:
    quiet: Any = {"seed_of_rank": 0.0002, "row_of_rank": 0.005, "row_of_trial": 0.005}
    (study,) = studies(Truth(floors={8: 1.03, 64: 1.0, 256: 1.0}, seeds=3, rows=200, **quiet), 1, 17)
    spec = study.data.spec.model_copy(update={"prefer": preference})
    return summarize_data(replace(study.data, spec=spec))


def test_clear_answer_names_the_smallest_rank_that_is_enough() -> None:
    summary = made_up(seed_of_rank=0.0002, row_of_rank=0.005, row_of_trial=0.005)
    assert summary.answer.status == "clear"
    assert summary.recommendation.use.rank == 64
    assert summary.answer.now == ()
    assert say(summary.answer.text).startswith("Use rank 64: ")
    assert headline(summary) == f"Clear. {say(summary.answer.text)}"


def test_upper_end_of_the_interval_stands_beside_the_tolerance() -> None:
    summary = made_up(floors={8: 1.03, 64: 1.002, 256: 1.0}, seed_of_rank=0.0001, row_of_rank=0.004, row_of_trial=0.004)
    assert summary.answer.text.code == "answer.enough"
    interval = summary.ranks[1].excess_loss_ci95
    assert interval is not None
    assert say(summary.answer.text) == (
        f"Use rank 64: its loss is at most {interval[1]:.4f} above the best, within your limit of 0.005."
    )


def test_tie_names_the_smallest_rank() -> None:
    summary = made_up(floors={8: 1.0, 64: 1.0, 256: 1.0}, seed_of_rank=0.0002, row_of_rank=0.005, row_of_trial=0.005)
    assert headline(summary) == "Tie. Ranks 8 to 256 are equally good, within 0.005. Use rank 8."


@pytest.mark.parametrize(("seeds", "blamed"), [(2, "2 seeds"), (1, "one seed")])
def test_undecided_study_says_what_cannot_tell(seeds: int, blamed: str) -> None:
    summary = made_up(floors={8: 1.001, 64: 1.0, 256: 1.0}, seeds=seeds, seed_of_rank=0.01)
    assert summary.answer.status == "undecided"
    assert blamed in say(summary.answer.text)
    assert say(summary.answer.now[0]).startswith("For now use rank ")


def test_one_seed_is_neither_clear_nor_a_tie() -> None:
    found = {made_up(seeds=1, floors=floors, row_of_rank=0.004, row_of_trial=0.004).answer.text.code
             for floors in ({8: 1.03, 64: 1.0, 256: 1.0}, {8: 1.0, 64: 1.0, 256: 1.0})}  # fmt: skip
    assert "answer.enough_in_one_seed" in found
    assert all(code.endswith("in_one_seed") for code in found)


def test_preferred_need_is_named_beside_the_smallest_rank_that_is_enough() -> None:
    assert say(preferring("memory").answer.text) == (
        "Use rank 8 for the least memory. The smallest rank that is good enough is 64."
    )


@pytest.mark.parametrize(
    ("study", "sentence"),
    [
        ({"steps": 12}, "12 steps are too few for a verdict, which needs at least 20."),
        ({"n_eval": 9}, "9 held-out examples are too few for a verdict, which needs at least 20."),
        (
            {"done": {"r8": 40, "r128": 40, "r256": 40}},
            "At step 40 of 80, with 0 of 3 runs ended, there is no verdict yet.",
        ),
        ({"done": {"r256": 40}}, "At step 80 of 80, with 2 of 3 runs ended, there is no verdict yet."),
        ({"done": {"r8": 0, "r128": 0, "r256": 0}}, "Nothing has been trained yet."),
    ],
)
def test_too_early_says_what_is_missing(make_study: MakeStudy, study: dict[str, Any], sentence: str) -> None:
    answer = summarize(make_study(spec=StudySpec(seeds=(0,)), **study)).answer
    assert (answer.status, say(answer.text)) == ("too_early", sentence)
    assert say(answer.now) == ("Rank 128 has the lowest loss so far." if "done" not in study else "")


def test_one_rank_has_nothing_to_be_compared_with(make_study: MakeStudy) -> None:
    diverged = TrialOutcome(trial_id="r256", state="diverged", steps=10, message=None)
    folder = make_study(floors={8: 1.3, 256: 1.2}, done={"r256": 10}, outcomes={"r256": diverged})
    answer = summarize(folder).answer
    assert answer.status == "one_rank"
    assert say(answer.text) == "There is nothing to compare: only rank 8 has a held-out loss."


def test_no_answer_says_why(make_study: MakeStudy) -> None:
    ends = {name: TrialOutcome(trial_id=name, state="oom", steps=0, message=None) for name in ("r8", "r256")}
    folder = make_study(floors={8: 1.3, 256: 1.2}, done=dict.fromkeys(ends, 0), outcomes=ends)
    answer = summarize(folder).answer
    assert answer.status == "no_answer"
    assert say(answer.text) == "No rank can be compared: every trial ended early."


@pytest.mark.parametrize(
    ("rank", "adequate", "cut"), [(256, 32, 32), (256, 256, None), (256, None, None), (64, 32, None), (None, 32, None)]
)
def test_only_the_adapter_that_was_truncated_is_shipped_smaller(
    rank: int | None, adequate: int | None, cut: int | None
) -> None:
    truncation = TruncationSection(trial_id="r256", rank=256, eval_loss=1.0, adequate_rank=adequate, cuts=())
    assert truncated_rank(rank, truncation) == cut
    assert truncated_rank(rank, None) is None


@pytest.mark.parametrize("name", sorted(scenarios())[::11])
def test_answer_agrees_with_verdict_and_recommendation(name: str) -> None:
    """A clear answer or a tie uses a rank that is proven to be enough, and every sentence is short."""
    truth = replace(scenarios()[name], rows=min(100, scenarios()[name].rows))
    for study in studies(truth, 5, 23):
        summary = summarize_data(study.data)
        use = summary.recommendation.use
        if summary.answer.status in ("clear", "tie"):
            assert use.evidence == "proven"
            assert f"Use rank {use.rank}" in say(summary.answer.text)
        else:
            assert summary.answer.status == "undecided"
            assert f"rank {use.rank}" in say(summary.answer.now)
        assert len(say(summary.answer.text).split()) <= MOST_WORDS
