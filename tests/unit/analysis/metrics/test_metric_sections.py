"""Metrics of made-up studies: who is shown to be below, by how much, and in which words."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_rel

from lorascope.analysis import load_study, summarize, summarize_data
from lorascope.analysis.estimates.paired import Uncertain
from lorascope.analysis.estimates.ranks import choose
from lorascope.analysis.metrics.estimates import shown_below
from lorascope.analysis.metrics.schema import MetricSection
from lorascope.analysis.metrics.token_accuracy import accuracy_rows, common_accuracy
from lorascope.message import Message
from lorascope.records import BASE_MODEL, EvalRecord, FurtherEvalRecord, LookRecord, ScoreRecord
from lorascope.search.best import last_finite
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from lorascope.text.language import language
from lorascope.text.say import say
from lorascope.text.tables.metrics import metric_table
from lorascope.web.monitor import Result
from lorascope.web.parts import render_result

Solved = Mapping[str, np.ndarray]
NAME = "exact_match"


def put_scores(
    folder: Path, scores: Solved, *, name: str = NAME, failed: tuple[int, ...] = (), length: int = 64,
    fingerprint: str = "",
) -> None:  # fmt: skip
    """Store the scores of each trial's answers of so many tokens, those of some places as failed."""
    with StudyStore.create(folder / "study.db") as store:
        store.put_all(
            [
                ScoreRecord(
                    trial_id=trial_id, metric=name, place=place, score=None if place in failed else float(value),
                    error=Message("verbatim", text="no") if place in failed else None, max_new_tokens=length,
                    fingerprint=fingerprint,
                )
                for trial_id, values in scores.items()
                for place, value in enumerate(values, 1)
            ]
        )  # fmt: skip


def section_of(folder: Path, name: str = NAME) -> MetricSection:
    (found,) = (part for part in summarize(folder).metrics if part.name == name)
    return found


@pytest.fixture
def study(make_study: Callable[..., Path]) -> Path:
    """Three ranks of one seed."""
    return make_study(spec=StudySpec(ranks=(8, 128, 256), metrics=(NAME,)), floors={8: 1.3, 128: 1.2, 256: 1.2})


def solved(share: float, rows: int, seed: int) -> np.ndarray:
    """Rows that differ from rank to rank in a third of their hardness."""
    common = np.random.default_rng(1).random(rows)
    own = np.random.default_rng(seed).random(rows)
    return ((2 * common + own) / 3 < share).astype(float)


def test_a_rank_that_solves_far_fewer_rows_is_shown(study: Path) -> None:
    put_scores(study, {"r8": solved(0.3, 200, 2), "r128": solved(0.55, 200, 3), "r256": solved(0.55, 200, 4),
                       BASE_MODEL: solved(0.1, 200, 5)})  # fmt: skip
    found = section_of(study)
    scores = {part.rank: part.score for part in found.ranks}
    assert scores[8] == solved(0.3, 200, 2).mean()
    assert (found.verdict, found.rows, found.seeds, found.failed_rows) == ("differs", 200, 1, 0)
    assert found.base_score == solved(0.1, 200, 5).mean()
    assert [part.shown for part in found.ranks] == [True, False, False]
    assert found.ranks[0].below_best == pytest.approx(max(scores.values()) - scores[8])
    assert found.ranks[0].below_best_ci95[0] > 0
    assert (found.rows_to_show, found.noise_floor) == (None, None)
    best = next(part for part in found.ranks if part.rank == found.best)
    assert (best.below_best, best.below_best_ci95, best.shown) == (0.0, None, False)
    text = say(found.text)
    assert text.startswith(
        f"exact_match: rank {found.best} scores {best.score:.1%}, the highest, on 200 held-out rows."
    )
    assert "Rank 8 scores" in text
    assert text.count(": shown.") == 1
    assert text.count(": not shown.") == 1


def test_few_rows_that_differ_show_nothing_and_say_how_many_would(study: Path) -> None:
    flat = np.zeros(100)
    one, two = flat.copy(), flat.copy()
    one[:3], two[:1] = 1, 1
    put_scores(study, {"r8": flat, "r128": one, "r256": two})
    found = section_of(study)
    assert (found.verdict, found.best) == ("not_shown", 128)
    low, high = found.ranks[0].below_best_ci95
    assert low < 0 < 0.03 < high
    assert 150 < found.rows_to_show < 1000
    assert f"About {found.rows_to_show:,} rows would show the largest difference in four studies of five." in say(
        found.text
    )
    assert found.base_score is None


def test_values_between_have_the_interval_of_a_paired_test(make_study: Callable[..., Path]) -> None:
    folder = make_study(spec=StudySpec(ranks=(8, 128), metrics=("chrf",)), floors={8: 1.3, 128: 1.2})
    common, random = np.random.default_rng(1).random(60), np.random.default_rng(2)
    worse, better = 0.5 * common, 0.5 * common + 0.1 + 0.2 * random.random(60)
    put_scores(folder, {"r8": worse, "r128": better}, name="chrf")
    found = section_of(folder, "chrf")
    expected = ttest_rel(better, worse).confidence_interval(0.95)
    assert found.ranks[0].below_best_ci95 == pytest.approx((expected.low, expected.high))
    assert found.ranks[0].shown


def test_values_that_almost_no_row_tells_apart_have_no_interval(make_study: Callable[..., Path]) -> None:
    folder = make_study(spec=StudySpec(ranks=(8, 128), metrics=("chrf",)), floors={8: 1.3, 128: 1.2})
    values = np.random.default_rng(1).random(60) / 2
    better = values.copy()
    better[:9] += 0.2
    put_scores(folder, {"r8": values, "r128": better}, name="chrf")
    found = section_of(folder, "chrf")
    assert found.verdict == "not_shown"
    assert found.ranks[0].below_best_ci95 is None
    assert "as almost no row tells the two apart" in say(found.text)


def test_seeds_are_paired_and_give_the_noise_floor(make_study: Callable[..., Path]) -> None:
    folder = make_study(spec=StudySpec(ranks=(8, 128), seeds=(0, 1), metrics=(NAME,)), floors={8: 1.3, 128: 1.2})
    scores = {trial: solved(0.5, 200, seed) for seed, trial in enumerate(("r8", "r8-s1", "r128", "r128-s1"))}
    put_scores(folder, scores)
    found = section_of(folder)
    assert found.seeds == 2
    apart = [scores[rank].mean() - scores[f"{rank}-s1"].mean() for rank in ("r8", "r128")]
    assert found.noise_floor == pytest.approx(np.sqrt(np.mean(np.square(apart))))
    assert "Two seeds of the same rank are" in say(found.text)
    assert "another seed may order the ranks otherwise" not in say(found.text)


def test_rows_that_failed_and_answers_of_other_lengths_are_left_out(study: Path) -> None:
    values = {trial: solved(0.5, 50, seed) for seed, trial in enumerate(("r8", "r128", "r256"))}
    put_scores(study, values)
    put_scores(study, {"r8": values["r8"]}, failed=(3, 7))
    found = section_of(study)
    assert (found.rows, found.failed_rows) == (48, 2)
    assert "2 rows are left out" in say(found.text)
    put_scores(study, values, length=8)
    assert [part.name for part in summarize(study).metrics] == ["token_accuracy"]


def test_versions_of_a_metric_are_never_mixed(make_study: Callable[..., Path]) -> None:
    own = "mine.py:score"
    folder = make_study(spec=StudySpec(ranks=(8, 128), metrics=(own,)), floors={8: 1.3, 128: 1.2})
    trials = (BASE_MODEL, "r8", "r128")
    put_scores(folder, {trial: np.zeros(50) for trial in trials}, name=own, fingerprint="z")
    put_scores(folder, {trial: np.ones(30) for trial in trials}, name=own, fingerprint="a")
    found = section_of(folder, own)
    assert (found.rows, found.base_score, [part.score for part in found.ranks]) == (30, 1.0, [1.0, 1.0])


def test_rows_with_tests_of_their_own_are_compared_together(make_study: Callable[..., Path]) -> None:
    folder = make_study(spec=StudySpec(ranks=(8, 128), metrics=("python_tests",)), floors={8: 1.3, 128: 1.2})
    for tests, rows in (("a", 40), ("b", 25)):
        put_scores(folder, {"r8": np.ones(rows), "r128": np.ones(rows)}, name="python_tests", fingerprint=tests)
    assert section_of(folder, "python_tests").rows == 40


def test_too_few_rows_have_no_verdict(study: Path) -> None:
    put_scores(study, {trial: solved(share, 19, 1) for trial, share in (("r8", 0.1), ("r128", 0.9), ("r256", 0.9))})
    found = section_of(study)
    assert found.verdict == "too_few"
    assert not any(part.shown for part in found.ranks)
    assert "Too few rows for a verdict, which needs 20." in say(found.text)


def test_shown_is_about_the_pair_with_the_best_rank() -> None:
    one = Uncertain(value=0.1, variance=0.0025, degrees=100)  # p = 0.048
    pairs = {
        (8, 256): one, (8, 128): Uncertain(value=0.2, variance=0.0001, degrees=100),
        (128, 256): Uncertain(value=0.05, variance=0.0025, degrees=100),
    }  # fmt: skip
    below = pairs | {(b, a): found.turned() for (a, b), found in pairs.items()}
    assert one.interval().low > 0
    assert shown_below(256, below) == {8: False, 128: False}
    assert shown_below(128, below)[8]


def test_one_rank_is_compared_with_nothing(make_study: Callable[..., Path]) -> None:
    folder = make_study(spec=StudySpec(ranks=(8,), metrics=(NAME,)), floors={8: 1.3})
    put_scores(folder, {"r8": solved(0.5, 40, 1)})
    found = section_of(folder)
    assert found.verdict == "one_rank"
    assert say(found.text) == f"exact_match: rank 8 scores {found.ranks[0].score:.1%} on 40 held-out rows."


def test_token_accuracy_is_correct_over_target_tokens(make_study: Callable[..., Path]) -> None:
    folder = make_study(spec=StudySpec(ranks=(8, 128), seeds=(0, 1)), floors={8: 1.9, 128: 1.2})
    with StudyStore.open(folder / "study.db") as store:
        last = {name: last_finite(store.read(EvalRecord, trial_id=name)) for name in ("r8", "r8-s1", "r128", "r128-s1")}
    summary = summarize(folder)
    (section,) = summary.metrics
    for part, compared in zip(summary.ranks, section.ranks, strict=True):
        shares = [
            sum(last[name].example_correct_tokens) / sum(last[name].example_target_tokens)
            for name in (f"r{part.rank}", f"r{part.rank}-s1")
        ]
        assert part.token_accuracy == compared.score == pytest.approx(np.mean(shares))
        assert part.token_accuracy_ci95[0] < part.token_accuracy < part.token_accuracy_ci95[1]
    assert (section.name, section.verdict, section.best) == ("token_accuracy", "differs", 128)
    assert 0 < section.base_score < section.ranks[0].score


def test_a_rank_that_settled_early_keeps_its_token_accuracy(make_study: Callable[..., Path]) -> None:
    folder = make_study(spec=StudySpec(ranks=(8, 128), seeds=(0,)), floors={8: 1.9, 128: 1.2})
    data = load_study(folder)
    choices = choose(data, summarize(folder).trials)
    more = FurtherEvalRecord(
        trial_id="r128", first_row=201, example_nats=(20.0,) * 50, example_target_tokens=(20,) * 50, seconds=1.0,
        example_correct_tokens=(10,) * 50,
    )  # fmt: skip
    look = LookRecord(
        look=2, ranks=(128,), lora_alphas=(), learning_rates=(), seeds=(0,), rows=250, information=1.0,
        next="exhausted", next_ranks=(), next_value=0, next_seconds=0.0,
    )  # fmt: skip
    later = replace(data, looks=(look,), further={"r128": (more,)})
    rows = {rank: len(one.target_tokens) for rank, one in accuracy_rows(later, choices).items()}
    assert rows == {8: 200, 128: 250}
    assert {len(one.target_tokens) for one in common_accuracy(later, choices).values()} == {200}


def test_table_and_words_in_two_languages(study: Path) -> None:
    put_scores(study, {"r8": solved(0.3, 200, 2), "r128": solved(0.55, 200, 3), "r256": solved(0.55, 200, 4)})
    summary = summarize(study)
    table = metric_table(summary.metrics)
    assert table.header == (
        "rank", "token accuracy", "token accuracy: vs highest", "exact_match", "exact_match: vs highest"
    )  # fmt: skip
    assert [row[0] for row in table.rows] == ["base", "8", "128", "256"]
    assert {row[4] for row in table.rows} >= {"–", "highest"}
    assert table.rows[1][4].startswith("-")
    assert table.rows[1][4].endswith(", shown")
    with language("ko"):
        assert "입증되었습니다" in say(section_of(study).text)
        assert metric_table(summary.metrics).header[0] == "랭크"


def test_page_shows_metrics_that_the_study_names(study: Path) -> None:
    put_scores(study, {trial: solved(0.5, 40, seed) for seed, trial in enumerate(("r8", "r128", "r256"))})
    data = load_study(study)
    html = str(render_result(Result(data=data, summary=summarize_data(data)), "en")["result"])
    assert "<h2>Metrics on held-out rows</h2>" in html
    assert "exact_match: rank " in html
