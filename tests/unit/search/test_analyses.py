"""Which analyses of trained adapters are pending."""

from pathlib import Path
from typing import Any

from lorascope.records import (
    BASE_MODEL,
    ForgettingRecord,
    HarnessTask,
    SampleAnswer,
    SamplePrompt,
    ScoreRecord,
    SpectrumRecord,
    TruncationRecord,
)
from lorascope.scoring.names import fingerprint
from lorascope.search.analyses import AnalysisRecord, pending_analyses, truncation_ranks
from lorascope.spec.fields.answer import BUILTIN_TEXT
from lorascope.spec.schema import StudySpec

SPEC = StudySpec(ranks=(2, 4), forgetting_text=BUILTIN_TEXT)
BEST = {("", 2): "r2", ("", 4): "r4"}


def spectrum(trial_id: str) -> SpectrumRecord:
    return SpectrumRecord(trial_id=trial_id, layer="q_proj", singular_values=(1.0,))


def truncation(trial_id: str, rank: int) -> TruncationRecord:
    return TruncationRecord(trial_id=trial_id, rank=rank, example_nats=(1.0,), example_target_tokens=(1,), seconds=0.1)


def forgetting(trial_id: str, text_hash: str = "a") -> ForgettingRecord:
    return ForgettingRecord(
        trial_id=trial_id, text="t", text_hash=text_hash, window_nats=(1.0,), window_target_tokens=(1,), seconds=0.1
    )


def test_the_ranks_to_truncate_to() -> None:
    assert truncation_ranks(256, (8, 100, 256)) == (1, 2, 4, 8, 16, 32, 64, 100, 128)
    assert truncation_ranks(5, ()) == (1, 2, 4)
    assert truncation_ranks(1, (1,)) == ()


def test_everything_is_pending_until_it_is_stored() -> None:
    pending = pending_analyses(SPEC, BEST, [], text_hash="a")
    assert (pending.spectra, pending.forgetting) == (("r2", "r4"), (BASE_MODEL, "r2", "r4"))
    assert pending.truncations == (("r4", 1), ("r4", 2))
    stored: list[AnalysisRecord] = [
        *map(spectrum, ("r2", "r4")), *(truncation("r4", rank) for rank in (1, 2)),
        *map(forgetting, (BASE_MODEL, "r2", "r4")),
    ]  # fmt: skip
    assert not pending_analyses(SPEC, BEST, stored, text_hash="a")


def test_losses_on_another_text_do_not_count() -> None:
    stored = [forgetting(BASE_MODEL), forgetting("r2"), forgetting("r4", "b")]
    assert pending_analyses(SPEC, BEST, stored, text_hash="b").forgetting == (BASE_MODEL, "r2")
    assert pending_analyses(SPEC, BEST, stored, text_hash=None).forgetting == ("r4",)


def test_truncations_of_another_trial_do_not_count() -> None:
    assert pending_analyses(SPEC, BEST, [truncation("r2", 1)], text_hash=None).truncations == (("r4", 1), ("r4", 2))


def test_nothing_is_pending_without_an_adapter_or_where_it_is_turned_off() -> None:
    assert not pending_analyses(SPEC, {}, [], text_hash=None)
    off = StudySpec(ranks=(2, 4), forgetting_text="none", truncation=False)
    assert not pending_analyses(off, BEST, [spectrum("r2"), spectrum("r4")], text_hash=None)


def test_the_largest_rank_of_each_set_of_targets_is_truncated() -> None:
    best = {("q", 2): "r2-q", ("q", 4): "r4-q", ("all", 2): "r2-all"}
    found = pending_analyses(SPEC, best, [truncation("r4-q", 1)], text_hash=None)
    assert found.truncations == (("r4-q", 2), ("r2-all", 1))
    assert found.spectra == ("r2-q", "r4-q", "r2-all")


def answer(trial_id: str, place: int, max_new_tokens: int = 64) -> SampleAnswer:
    return SampleAnswer(
        trial_id=trial_id, place=place, text="a", tokens=1, ended=True, max_new_tokens=max_new_tokens, temperature=0.0,
        seconds=0.1, error=None,
    )  # fmt: skip


def test_prompts_are_pending_until_all_have_answered_them() -> None:
    spec = SPEC.model_copy(update={"samples": 3})
    stored = [answer(trial_id, 1) for trial_id in (BASE_MODEL, "r2", "r4")] + [answer("r2", 2), answer("r4", 2, 9)]
    found = pending_analyses(spec, BEST, stored, n_eval=100).samples
    assert found == ((2, (BASE_MODEL, "r4")), (3, (BASE_MODEL, "r2", "r4")))
    assert pending_analyses(spec, BEST, stored, n_eval=2).samples == found[:1]
    assert not pending_analyses(spec, BEST, stored, n_eval=100, left_out=("samples",)).samples
    assert not pending_analyses(spec, {}, [], n_eval=100).samples
    assert not pending_analyses(SPEC.model_copy(update={"samples": 0}), BEST, [], n_eval=100).samples


def score(trial_id: str, place: int, metric: str = "contains", **changes: Any) -> ScoreRecord:
    fields: dict[str, Any] = {"score": 1.0, "error": None, "max_new_tokens": 64, "fingerprint": ""} | changes
    return ScoreRecord(trial_id=trial_id, metric=metric, place=place, **fields)


def prompt(place: int, *, continued: bool) -> SamplePrompt:
    return SamplePrompt(
        place=place, row=place, prompt="p", truth="t", prompt_tokens=1, truth_tokens=1, continued=continued
    )


def test_scores_are_pending_for_every_metric_and_seed_of_rows_with_a_completion() -> None:
    spec = SPEC.model_copy(update={"samples": 0, "metrics": ("contains", "token_accuracy", "chrf")})
    scored = ("r2", "r2-s1")
    stored: list[AnalysisRecord] = [prompt(2, continued=True), prompt(3, continued=False)]
    stored += [score(trial_id, 1, metric) for trial_id in (BASE_MODEL, *scored) for metric in ("contains", "chrf")]
    stored += [score("r2", 3), score("r2", 3, "chrf"), score("r2-s1", 3), score("r2-s1", 3, "chrf", max_new_tokens=8)]

    def pending(records: list[AnalysisRecord], **changes: Any) -> object:
        fields: dict[str, Any] = {"scored": scored, "n_eval": 3} | changes
        return pending_analyses(spec, BEST, records, **fields).scores

    assert pending(stored) == ((3, (BASE_MODEL, "r2-s1")),)
    assert pending([*stored, score(BASE_MODEL, 3), score(BASE_MODEL, 3, "chrf"), score("r2-s1", 3, "chrf")]) == ()
    assert pending(stored, left_out=("metrics",)) == pending(stored, scored=()) == ()
    without = spec.model_copy(update={"metrics": ("token_accuracy",)})
    assert pending_analyses(without, BEST, [], scored=scored, n_eval=3).scores == ()


def test_changed_tests_of_a_row_make_its_scores_pending() -> None:
    spec = SPEC.model_copy(update={"samples": 0, "metrics": ("python_tests",)})
    tests = {1: "assert x", 2: "assert y"}
    stored = [
        score(trial_id, place, "python_tests", fingerprint=fingerprint("python_tests", code))
        for trial_id in (BASE_MODEL, "r2")
        for place, code in tests.items()
    ]

    def pending(now: dict[int, str | None] | None) -> object:
        return pending_analyses(spec, BEST, stored, scored=("r2",), n_eval=2, tests=now).scores

    assert pending({**tests}) == pending(None) == ()
    assert pending({1: "assert x", 2: "assert z"}) == ((2, (BASE_MODEL, "r2")),)


def test_stored_answers_are_scored_where_a_budget_left_the_others_out() -> None:
    spec = SPEC.model_copy(update={"samples": 0, "metrics": ("contains", "chrf")})
    stored: list[AnalysisRecord] = [answer(BASE_MODEL, 1), answer("r2", 1), answer("r2", 2, 9)]
    stored += [score(BASE_MODEL, 1), score("r2", 1)]
    found = pending_analyses(spec, BEST, stored, scored=("r2",), n_eval=2, left_out=("metrics",))
    assert found.scores == ((1, (BASE_MODEL, "r2")),)


def test_benchmarks_are_pending_for_trials_without_scores_of_their_requests() -> None:
    task = HarnessTask(
        given="arc", task="arc_easy", metric="acc", documents=2, limit=None, tokens=90.0, new_tokens=0, fingerprint="a"
    )
    stored: list[AnalysisRecord] = [
        score(trial_id, place, task.name, fingerprint=print_, max_new_tokens=0)
        for trial_id, print_ in ((BASE_MODEL, "a"), ("r2", "b"))
        for place in (1, 2)
    ]

    def pending(**changes: Any) -> object:
        fields: dict[str, Any] = {"scored": ("r2", "r4"), "harness": [task, task]} | changes
        return pending_analyses(SPEC, BEST, stored, **fields).benchmarks

    assert task.name == "lm_eval:arc_easy/acc"
    assert pending() == ((task, ("r2", "r4")),)
    assert pending(left_out=("lm_eval",)) == pending(scored=()) == pending(harness=[]) == ()


def test_a_changed_file_of_metrics_makes_its_scores_pending(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("score = max", encoding="utf-8")
    name = f"{path}:score"
    spec = SPEC.model_copy(update={"metrics": (name,)})
    stored = [score(trial_id, 1, name, fingerprint=fingerprint(name)) for trial_id in (BASE_MODEL, "r2")]
    assert pending_analyses(spec, BEST, stored, scored=("r2",), n_eval=1).scores == ()
    path.write_text("score = min", encoding="utf-8")
    assert pending_analyses(spec, BEST, stored, scored=("r2",), n_eval=1).scores == ((1, (BASE_MODEL, "r2")),)
