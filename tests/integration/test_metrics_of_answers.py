"""Metrics of answers in whole studies: every seed scored once, what fails refused or kept, and what users read."""

import json
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lorascope.analysis import load_study, summarize
from lorascope.errors import InputError
from lorascope.records import BASE_MODEL, BudgetRecord, SampleAnswer, SamplePrompt, ScoreRecord
from lorascope.run import samples
from lorascope.run import scores as run_scores
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from lorascope.text.say import say
from support.studies import execute, study_of

LENGTH = "def score(prompt, reference, answer):\n    return min(1.0, len(answer) / 40)\n"


def write_metric(folder: Path, code: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "mine.py").write_text(code, encoding="utf-8")
    return f"{folder / 'mine.py'}:score"


def spec_of(model_folders: Mapping[str, str], rows_file: str, **changes: Any) -> StudySpec:
    return study_of(
        model_folders["llama"], rows_file,
        **{"truncation": False, "max_new_tokens": 4, "seeds": (0, 1), "metrics": ("contains",)} | changes,
    )  # fmt: skip


def scores(folder: Path) -> dict[tuple[str, str, int], ScoreRecord]:
    with StudyStore.open(folder / "study.db") as store:
        return {(one.metric, one.trial_id, one.place): one for one in store.read(ScoreRecord)}


TRIALS = (BASE_MODEL, "r2", "r2-s1", "r4", "r4-s1")


def test_every_seed_of_each_rank_is_scored_and_compared(
    model_folders: Mapping[str, str], rows_file: str, tmp_path: Path
) -> None:
    own = write_metric(tmp_path, LENGTH)
    spec = spec_of(model_folders, rows_file, metrics=("contains", own, "token_accuracy"), samples=2)
    execute(spec, tmp_path / "study")
    found = scores(tmp_path / "study")
    assert set(found) == {
        (metric, trial, place) for metric in ("contains", own) for trial in TRIALS for place in range(1, 5)
    }
    with StudyStore.open(tmp_path / "study" / "study.db") as store:
        answers = {(one.trial_id, one.place): one for one in store.read(SampleAnswer)}
        truth = {one.place: one.truth for one in store.read(SamplePrompt)}
    for (metric, trial, place), one in found.items():
        text = answers[trial, place].text
        assert one.score == (min(1.0, len(text) / 40) if metric == own else float(truth[place].strip() in text))
    accuracy, contains, length = summarize(tmp_path / "study").metrics
    assert [part.name for part in (accuracy, contains, length)] == ["token_accuracy", "contains", own]
    assert (length.rows, length.seeds, length.verdict, length.failed_rows) == (4, 2, "too_few", 0)
    for part in length.ranks:
        own_scores = [found[own, f"r{part.rank}{seed}", place].score for seed in ("", "-s1") for place in range(1, 5)]
        assert part.score == pytest.approx(sum(own_scores) / 8)
    assert length.base_score == pytest.approx(sum(found[own, BASE_MODEL, place].score for place in range(1, 5)) / 4)
    assert accuracy.base_score is not None


def test_what_is_scored_is_not_scored_again(model_folders: Mapping[str, str], rows_file: str, tmp_path: Path) -> None:
    spec = spec_of(model_folders, rows_file, samples=4)
    execute(spec, tmp_path / "study")
    before = scores(tmp_path / "study")
    assert "nothing was trained" in execute(spec, tmp_path / "study").notes[0]
    calls = tmp_path / "calls"
    note = f"    with open({str(calls)!r}, 'a') as file:\n        file.write('x')\n"
    own = write_metric(tmp_path, f"def score(*texts):\n{note}    return 1\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "generate", lambda *args, **kwargs: pytest.fail("all answers are there"))
        more = spec.model_copy(update={"metrics": ("contains", own)})
        assert execute(more, tmp_path / "study").steps == []
    assert scores(tmp_path / "study").items() > before.items()
    assert len(calls.read_text()) == 4 * len(TRIALS) + 1  # once on a true answer, before anything else
    write_metric(tmp_path, "def score(*texts):\n    return 0.5\n")
    execute(more, tmp_path / "study")
    assert {one.score for key, one in scores(tmp_path / "study").items() if key[0] == own} == {0.5}
    longer = more.model_copy(update={"max_new_tokens": 5})
    execute(longer, tmp_path / "study")
    assert {one.max_new_tokens for one in scores(tmp_path / "study").values()} == {5}


def test_drawn_answers_are_read_and_greedy_ones_scored(
    model_folders: Mapping[str, str], rows_file: str, tmp_path: Path
) -> None:
    spec = spec_of(model_folders, rows_file, samples=2, sample_temperature=0.9, seeds=(0,))
    execute(spec, tmp_path / "study")
    with StudyStore.open(tmp_path / "study" / "study.db") as store:
        answers = [(one.temperature, one.trial_id, one.place) for one in store.read(SampleAnswer)]
    trials = (BASE_MODEL, "r2", "r4")
    drawn = {(0.9, trial, place) for trial in trials for place in (1, 2)}
    assert sorted(answers) == sorted(drawn | {(0.0, trial, place) for trial in trials for place in range(1, 5)})


def test_a_metric_that_fails_on_a_row_leaves_the_row_out(
    model_folders: Mapping[str, str], rows_file: str, tmp_path: Path
) -> None:
    own = write_metric(
        tmp_path, "calls = []\ndef score(*texts):\n    calls.append(1)\n    return 1 / (len(calls) != 4)\n"
    )
    watcher = execute(spec_of(model_folders, rows_file, metrics=(own,), seeds=(0,)), tmp_path / "study")
    failed = [one for one in scores(tmp_path / "study").values() if one.score is None]
    assert len(failed) == 1
    assert any(f"answers that {own} could not judge: 1; the first: held-out row" in note for note in watcher.notes)
    (section,) = (part for part in summarize(tmp_path / "study").metrics if part.name == own)
    assert (section.rows, section.failed_rows) == (3, 1)


def test_a_time_budget_that_ends_leaves_rows_out(
    model_folders: Mapping[str, str], rows_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = count(step=15)  # seconds; scores may take a fifth of five minutes
    monkeypatch.setattr(run_scores, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    changes = {"time_budget": "5min", "until_decided": False, "seeds": (0,), "max_steps": 2, "samples": 0}
    spec = spec_of(model_folders, rows_file, **changes)
    watcher = execute(spec, tmp_path / "study")
    assert {one.place for one in scores(tmp_path / "study").values()} == {1}
    assert "left out, as the time budget ends: scores of held-out rows beyond 1 of 4" in watcher.notes
    with StudyStore.open(tmp_path / "study" / "study.db") as store:
        assert store.read_one(BudgetRecord).left_out == ("metrics",)
    assert "nothing was trained" in execute(spec, tmp_path / "study").notes[0]
    assert {one.place for one in scores(tmp_path / "study").values()} == {1}
    monkeypatch.undo()
    execute(spec.model_copy(update={"metrics": ("contains", "exact_match")}), tmp_path / "study")
    found = {(one.metric, one.place) for one in scores(tmp_path / "study").values()}
    assert found == {(metric, place) for metric in ("contains", "exact_match") for place in range(1, 5)}
    with StudyStore.open(tmp_path / "study" / "study.db") as store:
        assert store.read_one(BudgetRecord).left_out == ()


def test_true_answers_that_are_cut_are_noted(model_folders: Mapping[str, str], rows_file: str, tmp_path: Path) -> None:
    def notes(**changes: Any) -> list[str]:
        watcher = execute(spec_of(model_folders, rows_file, seeds=(0,), **changes), tmp_path / "study")
        return [note for note in watcher.notes if "answers to them are cut" in note]

    (note,) = notes(max_new_tokens=1)
    assert note.startswith("100.0% of the true answers that metrics compare are longer than max_new_tokens = 1: ")
    data = load_study(tmp_path / "study")
    assert note in [say(one) for one in data.resolved.data_notes]
    longest = max(prompt.truth_tokens for prompt in data.prompts)
    assert note.endswith(f"--max-new-tokens {longest} holds all.")
    assert notes(max_new_tokens=longest) == []


def test_code_is_run_with_the_tests_of_its_row(model_folders: Mapping[str, str], tmp_path: Path) -> None:
    rows = [
        {
            "prompt": f"number {n}", "completion": f"x = {n}" + " + 0" * (n % 3),
            "tests": f"assert x == {n}" if n % 2 else [f"assert x < {n + 1}", f"assert x > {n - 1}"],
        }
        for n in range(40)
    ]  # fmt: skip
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    spec = spec_of(model_folders, str(tmp_path / "rows.json"), metrics=("python_tests",), seeds=(0,), samples=0)

    truth = {f"number {n}": n for n in range(40)}

    def right(tokenizer: Any, prompt: Any, ids: Any) -> str:
        return f"x = {truth[str(tokenizer.decode(prompt))]}"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "answer_text", right)
        execute(spec, tmp_path / "study")
    found = scores(tmp_path / "study")
    assert len(found) == 12
    assert {one.score for one in found.values()} == {1.0}


BAD: dict[str, tuple[str, str]] = {
    "exact_macth": ("there is no metric 'exact_macth'", "did you mean exact_match?"),
    "regex:(": ("is not a regular expression", "correct the pattern"),
    "gone.py:score": ("which is no file", "check the path"),
    "python_tests": (
        "needs a column with tests, and the rows have prompt, completion",
        "give the rows a column 'tests'",
    ),
}


@pytest.mark.parametrize("metric", BAD)
def test_metrics_that_cannot_be_used_are_refused_before_training(
    metric: str, model_folders: Mapping[str, str], rows_file: str, tmp_path: Path,
    lorascope: Callable[..., tuple[int, str, str]],
) -> None:  # fmt: skip
    problem, remedy = BAD[metric]
    code, _, error = lorascope(
        "run",
        "--model",
        model_folders["llama"],
        "--dataset",
        rows_file,
        "--metric",
        metric,
        "--out",
        tmp_path / "study",
    )
    assert code == 2
    assert problem in error
    assert remedy in error
    assert not (tmp_path / "study").exists()


def test_rows_without_a_completion_have_no_metric(model_folders: Mapping[str, str], tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"text": f"some words and the number {n}"} for n in range(40)]), encoding="utf-8")
    with pytest.raises(InputError, match="no held-out row has a prompt with a completion"):
        execute(spec_of(model_folders, str(path)), tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_flags_name_metrics_again_and_again_or_with_commas(
    model_folders: Mapping[str, str], rows_file: str, tmp_path: Path, lorascope: Callable[..., tuple[int, str, str]]
) -> None:
    spec = spec_of(model_folders, rows_file, metrics=())
    (tmp_path / "study.yaml").write_text(
        json.dumps(spec.model_dump(mode="json", exclude={"metrics"})), encoding="utf-8"
    )
    flags = ("--metric", "contains,exact_match", "--metric", r"regex:[a-z]{1,3}")
    code, _, error = lorascope("run", tmp_path / "study.yaml", "--out", tmp_path / "study", *flags)
    assert code == 0, error
    assert {key[0] for key in scores(tmp_path / "study")} == {"contains", "exact_match", r"regex:[a-z]{1,3}"}
    report = (tmp_path / "study" / "report.md").read_text(encoding="utf-8")
    assert "Metrics on held-out rows" in report
    assert "contains: vs highest" in report
    _, notes, _ = lorascope("report", tmp_path / "study", "--notes")
    assert "contains: rank " in " ".join(notes.split())
