"""Metrics of answers: what each gives, and what of the user's is refused."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorascope.errors import InputError
from lorascope.scoring.names import BUILT_IN, find_problem, fingerprint, split_names
from lorascope.scoring.registry import load_scorers
from lorascope.scoring.scorer import ScoredRow, ScoreError, checked, try_scorers

ROW = ScoredRow(row=3, prompt="Add 2 and 2.", reference="It is 4.\n#### 4")


def score(name: str, answer: str, row: ScoredRow = ROW) -> float:
    (scorer,) = load_scorers([name])
    return scorer.score(row, answer)


@pytest.mark.parametrize(
    ("name", "answer", "expected"),
    [
        ("exact_match", " It  is 4.\n\n#### 4 ", 1.0),
        ("exact_match", "it is 4. #### 4", 0.0),
        ("contains", "Well. It is 4. #### 4 indeed", 1.0),
        ("contains", "It is 4.", 0.0),
        (r"regex:#### (-?\d+)", "No idea. #### 5 or #### 4", 1.0),
        (r"regex:#### (-?\d+)", "#### 4 or #### 5", 0.0),
        (r"regex:#### (-?\d+)", "4", 0.0),
        (r"regex:^\d{1,2}$", "4", 1.0),
        (r"regex:^\d{1,2}$", "444", 0.0),
    ],
)
def test_metrics_of_texts_by_hand(name: str, answer: str, expected: float) -> None:
    assert score(name, answer) == expected


def test_rouge_and_chrf_are_those_of_their_libraries() -> None:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.chrf import CHRF

    for answer in ("It is 4.", "It was perhaps 5\n#### 5", "", ROW.reference):
        assert score("rouge_l", answer) == RougeScorer(["rougeL"]).score(ROW.reference, answer)["rougeL"].fmeasure
        assert score("chrf", answer) == pytest.approx(CHRF().sentence_score(answer, [ROW.reference]).score / 100)
    assert score("rouge_l", ROW.reference) == score("chrf", ROW.reference) == 1.0


def test_rouge_reads_words_of_every_script() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    row = ScoredRow(row=1, prompt="", reference="오늘 서울 날씨는 맑습니다")
    assert score("rouge_l", row.reference, row) == 1.0
    assert score("rouge_l", "오늘 부산 날씨는 맑습니다", row) == pytest.approx(3 / 4)
    row = ScoredRow(row=1, prompt="", reference="a_b Snake-case 3.5 don't")
    for answer in ("a b snake case", "3 5 don t x", "A_B"):
        assert score("rouge_l", answer, row) == RougeScorer(["rougeL"]).score(row.reference, answer)["rougeL"].fmeasure


def test_every_answer_contains_an_empty_one() -> None:
    with pytest.raises(ScoreError, match="the true answer"):
        score("contains", "whatever", ScoredRow(row=1, prompt="", reference=" \n"))


@pytest.mark.parametrize("name", ["rouge_l", "chrf"])
def test_only_an_empty_answer_is_like_an_empty_one(name: str) -> None:
    row = ScoredRow(row=1, prompt="", reference=" \n")
    assert [score(name, answer, row) for answer in ("", "\n ", "whatever")] == [1.0, 1.0, 0.0]


HEAD = 'from math import floor\n\ndef half(number: int) -> int:\n    """Return half of a number."""\n'
TESTS = "def check(candidate):\n    assert candidate(5) == 2\ncheck(half)\n"


@pytest.mark.parametrize(
    ("prompt", "answer", "expected"),
    [
        (HEAD, "    return floor(number / 2)\n", 1.0),
        (HEAD, "    return number\n", 0.0),
        (HEAD, "", 0.0),
        (HEAD, "def half(number):\n    return number // 2\n", 1.0),
        (HEAD, "```python\n    return floor(number / 2)\n```", 1.0),
        ("Write half(number).", "def half(number):\n    return number // 2\n", 1.0),
        ("Write half(number).", "    return number // 2\n", 0.0),
    ],
)
def test_code_that_only_goes_on_runs_behind_its_prompt(prompt: str, answer: str, expected: float) -> None:
    row = ScoredRow(row=1, prompt=prompt, reference="", tests=TESTS)
    assert score("python_tests", answer, row) == expected


def test_a_built_in_metric_that_fails_its_own_row_is_refused_before_training() -> None:
    wrong = ScoredRow(row=2, prompt="", reference="x = 1", tests="assert x == 2")
    empty = ScoredRow(row=5, prompt="", reference="x = 1", tests="def check(candidate):\n    assert candidate(1)")
    scorers = load_scorers(["python_tests"])
    with pytest.raises(InputError, match="gives 0, not 1, to the true answer of held-out row 2"):
        try_scorers(scorers, [wrong])
    with pytest.raises(InputError, match="an empty answer passes the tests of held-out row 5"):
        try_scorers(scorers, [empty])


@pytest.mark.parametrize(
    ("name", "library"), [("rouge_l", "rouge_score.rouge_scorer"), ("chrf", "sacrebleu.metrics.chrf")]
)
def test_missing_library_names_its_extra(name: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InputError, match=r"not installed\n.*lorascope\[metrics\]"):
        load_scorers([name])


def test_a_pattern_that_the_true_answer_lacks_fails_the_row() -> None:
    with pytest.raises(ScoreError, match="does not match the true answer"):
        score(r"regex:Answer: (\w)", "Answer: a")


def test_names_are_split_at_commas_but_patterns_are_whole() -> None:
    assert split_names("exact_match, contains,") == ("exact_match", "contains")
    assert split_names("regex:a{1,2}") == ("regex:a{1,2}",)


def test_valid_names_have_no_problem() -> None:
    for name in (*BUILT_IN, "regex:a", "regex:(a)", "mine.py:score", "/a b/mine.py:score_2"):
        assert find_problem(name) is None


@pytest.mark.parametrize(
    ("name", "problem", "remedy"),
    [
        ("exact_macth", "there is no metric 'exact_macth'", "did you mean exact_match? "),
        ("bleu", "there is no metric 'bleu'", "regex:PATTERN, FILE.py:FUNCTION"),
        ("mine.py:2", "there is no metric", "FILE.py:FUNCTION"),
        ("regex:(", "is not a regular expression", "correct"),
        ("regex:", "has no pattern", "write one"),
        ("regex:(a)(b)", "has 2 groups", "(?:...)"),
    ],
)
def test_names_that_cannot_be_used(name: str, problem: str, remedy: str) -> None:
    found = find_problem(name)
    assert found is not None
    assert problem in found[0]
    assert remedy in found[1]


def write_metric(folder: Path, code: str) -> str:
    path = folder / "mine.py"
    path.write_text(code, encoding="utf-8")
    return f"{path}:score"


def test_own_function_gets_prompt_reference_and_answer(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("half = 0.5\n", encoding="utf-8")
    name = write_metric(
        tmp_path,
        "from beside import half\ncalls = []\n"
        "def score(prompt, reference, answer):\n    calls.append(answer)\n"
        "    seen = prompt, reference, len(calls)\n"
        "    return half if seen == ('Add 2 and 2.', 'It is 4.\\n#### 4', 2) else answer == 'a'\n",
    )
    (scorer,) = load_scorers([name])
    assert [scorer.score(ROW, answer) for answer in ("a", "b", "c")] == [1.0, 0.5, 0.0]


def test_fingerprint_follows_the_file(tmp_path: Path) -> None:
    name = write_metric(tmp_path, "score = len")
    before = fingerprint(name)
    write_metric(tmp_path, "score = max")
    assert fingerprint("exact_match") == fingerprint("exact_match", "assert x") == ""
    assert len({fingerprint("python_tests", tests) for tests in (None, "assert x", "assert y")}) == 3
    assert len({before, fingerprint(name), fingerprint(f"{tmp_path}/gone.py:score")}) == 3


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import nothing_of_this_name", r"fails when it is imported \(ModuleNotFoundError"),
        ("raise SystemExit(3)", r"fails when it is imported \(SystemExit"),
        ("def other(): ...", r"has no function 'score'\n.*other"),
        ("score = 3", "has no function 'score'"),
    ],
)
def test_own_files_that_cannot_be_used(code: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load_scorers([write_metric(tmp_path, code)])


def test_own_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="which is no file"):
        load_scorers([f"{tmp_path}/gone.py:score"])


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("'yes'", "returned 'yes' of type str"),
        ("None", "of type NoneType"),
        ("float('nan')", "returned nan"),
        ("1.5", r"returned 1\.5, not a number from 0 to 1"),
        ("-1", "returned -1"),
        ("1 / 0", "raised ZeroDivisionError"),
        ("[][prompt]", "raised TypeError"),
    ],
)
def test_own_function_that_fails_is_refused_before_training(returned: str, message: str, tmp_path: Path) -> None:
    scorers = load_scorers([write_metric(tmp_path, f"def score(prompt, reference, answer): return {returned}")])
    with pytest.raises(InputError, match=rf"fails on the true answer of held-out row 3: .*{message}"):
        try_scorers(scorers, [ROW])


def test_a_metric_is_tried_on_the_first_row_that_it_can_judge() -> None:
    blank = ScoredRow(row=1, prompt="", reference="no number")
    scorers = load_scorers([r"regex:#### (\d)", "python_tests"])
    tested = ScoredRow(row=2, prompt="", reference="x = '#### 4'", tests="assert x")
    try_scorers(scorers, [blank, tested])
    with pytest.raises(InputError, match=r"held-out row 1: .*does not match the true answer"):
        try_scorers(scorers, [blank])
    with pytest.raises(InputError, match=r"held-out row 3: the row has no tests"):
        try_scorers(scorers[1:], [blank, ROW])


def test_metric_without_a_completion_is_refused() -> None:
    with pytest.raises(InputError, match="no held-out row has a prompt with a completion"):
        try_scorers(load_scorers(["token_accuracy", "contains"]), [])
    try_scorers(load_scorers(["token_accuracy"]), [])


@pytest.mark.parametrize("value", [True, 1, 0.5, np.float32(0.25), np.int64(1), np.bool_(1)])
def test_numbers_of_all_kinds_are_scores(value: Any) -> None:
    assert checked("mine", value) == float(value)


def test_every_built_in_metric_gives_1_for_the_true_answer() -> None:
    row = ScoredRow(row=1, prompt="", reference="x = 1", tests="assert x == 1")
    scores = {scorer.name: scorer.score(row, row.reference) for scorer in load_scorers(BUILT_IN)}
    assert scores == dict.fromkeys(set(BUILT_IN) - {"token_accuracy"}, 1.0)
