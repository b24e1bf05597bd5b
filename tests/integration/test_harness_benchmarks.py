"""Benchmarks of EleutherAI's harness in whole studies: what it finds with PEFT itself, once, and what is refused."""

import json
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import peft
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

pytest.importorskip("lm_eval", reason="lm-eval is missing: make setup installs it")

from lorascope.analysis import summarize
from lorascope.errors import InputError
from lorascope.records import BASE_MODEL, ActivityRecord, BudgetRecord, HarnessTask, ScoreRecord
from lorascope.run import benchmarks
from lorascope.scoring.harness import load_tasks, silent_harness
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from support.studies import execute, study_of

pytestmark = pytest.mark.filterwarnings("ignore:fan_in_fan_out", "ignore:`is_gradient_checkpointing`")

TRIALS = (BASE_MODEL, "r2", "r2-s1", "r4", "r4-s1")
CHOICES = """task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {rows}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: gold
metric_list:
  - {{metric: {metric}, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
"""
GENERATED = """task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {rows}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n\\n"], max_gen_toks: 3}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""


@pytest.fixture(autouse=True)
def no_cache_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def write_task(folder: Path, kind: str = CHOICES, *, name: str = "made_up", metric: str = "acc", rows: int = 12) -> str:
    documents = [
        {
            "question": f"some words and the number {n}, then", "choices": [" one", " two words", " the number three"],
            "gold": n % 3, "answer": str(n % 2),
        }
        for n in range(rows)
    ]  # fmt: skip
    path = folder / f"{name}.json"
    path.write_text("\n".join(map(json.dumps, documents)), encoding="utf-8")
    task = folder / f"{name}.yaml"
    task.write_text(kind.format(name=name, rows=path, metric=metric), encoding="utf-8")
    return str(task)


def spec_of(model_folders: Mapping[str, str], rows_file: str, *tasks: str, **changes: Any) -> StudySpec:
    return study_of(
        model_folders["llama"], rows_file, **{"truncation": False, "seeds": (0, 1), "lm_eval": tasks} | changes
    )


def scores(folder: Path) -> dict[tuple[str, str, int], ScoreRecord]:
    with StudyStore.open(folder / "study.db") as store:
        return {(one.metric, one.trial_id, one.place): one for one in store.read(ScoreRecord)}


def load_peft(base: str, adapter: Path | None) -> Any:
    """The base in Transformers, with an adapter's files in PEFT where there is one."""
    model = AutoModelForCausalLM.from_pretrained(base)
    return model if adapter is None else peft.PeftModel.from_pretrained(model, adapter).eval()


def found_by_harness(model: Any, tokenizer: Any, task: str, metric: str, *, batch: int) -> list[float]:
    """What the harness logs of each document, run by itself."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    with silent_harness():
        manager = TaskManager(include_defaults=False)
        found = simple_evaluate(
            HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch), tasks=[task], task_manager=manager,
            log_samples=True, bootstrap_iters=0,
        )  # fmt: skip
    (samples,) = found["samples"].values()
    return [one[metric] for one in sorted(samples, key=lambda one: one["doc_id"])]


def test_documents_score_as_the_harness_finds_with_peft(
    model_folders: Mapping[str, str], rows_file: str, tmp_path: Path
) -> None:
    chosen, generated = write_task(tmp_path), write_task(tmp_path, GENERATED, name="spoken")
    watcher = execute(spec_of(model_folders, rows_file, chosen, generated), tmp_path / "study")
    found = scores(tmp_path / "study")
    names = {"lm_eval:made_up/acc": (chosen, 1), "lm_eval:spoken/exact_match": (generated, 8)}
    assert set(found) == {(name, trial, place) for name in names for trial in TRIALS for place in range(1, 13)}
    tokenizer = AutoTokenizer.from_pretrained(model_folders["llama"])
    for name, (task, batch) in names.items():
        for trial in TRIALS:
            adapter = tmp_path / "study" / "adapters" / trial if trial != BASE_MODEL else None
            model = load_peft(model_folders["llama"], adapter)
            expected = found_by_harness(model, tokenizer, task, name.partition("/")[2], batch=batch)
            assert [found[name, trial, place].score for place in range(1, 13)] == expected
    assert any("benchmark made_up: the base, 12 documents" in phase for phase in watcher.phases)
    _, choices, answers = summarize(tmp_path / "study").metrics
    assert [part.name for part in (choices, answers)] == list(names)
    assert (choices.rows, choices.seeds, choices.verdict) == (12, 2, "too_few")
    assert choices.base_score == pytest.approx(sum(found[choices.name, BASE_MODEL, n].score for n in range(1, 13)) / 12)
    with StudyStore.open(tmp_path / "study" / "study.db") as store:
        activity = next(one for one in store.read(ActivityRecord) if one.name == "lm_eval")
        assert activity.spent_seconds > 0


def test_adapters_change_likelihoods_as_in_the_engine(
    model_folders: Mapping[str, str], rows_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores of 0 and 1 may hide a wrong adapter; likelihoods do not."""
    seen: list[list[float]] = []
    task = write_task(tmp_path)
    evaluate = benchmarks._evaluate

    def kept(*arguments: Any) -> list[dict[str, Any]]:
        samples = evaluate(*arguments)
        seen.append([float(part[0]) for one in samples for part in one["filtered_resps"]])
        return samples

    monkeypatch.setattr(benchmarks, "_evaluate", kept)
    execute(spec_of(model_folders, rows_file, task, seeds=(0,), lm_eval_limit=3), tmp_path / "study")
    from lm_eval.models.huggingface import HFLM

    (loaded,) = load_tasks([task], 3)
    tokenizer = AutoTokenizer.from_pretrained(model_folders["llama"])
    for trial, found in zip((BASE_MODEL, "r2", "r4"), seen, strict=True):
        adapter = tmp_path / "study" / "adapters" / trial if trial != BASE_MODEL else None
        model = load_peft(model_folders["llama"], adapter)
        with silent_harness():
            harness = HFLM(pretrained=model, tokenizer=tokenizer)
            expected = [value for value, _ in harness.loglikelihood(loaded.task.instances)]
        assert found == pytest.approx(expected, rel=1e-4)
    assert abs(seen[0][0] - seen[1][0]) > 1e-3 * abs(seen[0][0])


def test_what_is_answered_is_not_answered_again(
    model_folders: Mapping[str, str], rows_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = write_task(tmp_path)
    spec = spec_of(model_folders, rows_file, task, seeds=(0,), lm_eval_limit=4)
    execute(spec, tmp_path / "study")
    before = scores(tmp_path / "study")
    assert {place for _, _, place in before} == {1, 2, 3, 4}
    with monkeypatch.context() as patch:
        patch.setattr(benchmarks, "_evaluate", lambda *arguments: pytest.fail("all documents are answered"))
        execute(spec, tmp_path / "study")
    assert scores(tmp_path / "study") == before
    assert execute(spec.model_copy(update={"lm_eval_limit": None}), tmp_path / "study").steps == []
    assert len(scores(tmp_path / "study")) == 3 * 12
    write_task(tmp_path, rows=10)
    execute(spec.model_copy(update={"lm_eval_limit": None}), tmp_path / "study")
    (section,) = (part for part in summarize(tmp_path / "study").metrics if part.name == "lm_eval:made_up/acc")
    assert section.rows == 10


def test_a_task_that_fails_is_noted_and_tried_again(
    model_folders: Mapping[str, str], rows_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = write_task(tmp_path, name="broken"), write_task(tmp_path)
    spec = spec_of(model_folders, rows_file, first, second, seeds=(0,))
    evaluate = benchmarks._evaluate

    def failing(run: Any, loaded: Any, adapter: int) -> Any:
        if loaded.record.task == "broken":
            raise KeyError("no such filter")
        return evaluate(run, loaded, adapter)

    with monkeypatch.context() as patch:
        patch.setattr(benchmarks, "_evaluate", failing)
        watcher = execute(spec, tmp_path / "study")
    assert "benchmark broken failed with the base: KeyError: 'no such filter'" in watcher.notes
    assert {key[0] for key in scores(tmp_path / "study")} == {"lm_eval:made_up/acc"}
    assert [part.name for part in summarize(tmp_path / "study").metrics][1:] == ["lm_eval:made_up/acc"]
    assert execute(spec, tmp_path / "study").steps == []
    assert {key[0] for key in scores(tmp_path / "study")} == {"lm_eval:made_up/acc", "lm_eval:broken/acc"}


def test_a_time_budget_that_ends_leaves_benchmarks_out_until_the_study_names_others(
    model_folders: Mapping[str, str], rows_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = count(step=25)  # seconds; benchmarks may take a fifth of five minutes
    first, second = write_task(tmp_path), write_task(tmp_path, name="other")
    changes = {"time_budget": "5min", "until_decided": False, "seeds": (0,), "max_steps": 2, "lm_eval_limit": 2}
    spec = spec_of(model_folders, rows_file, first, second, **changes)
    with monkeypatch.context() as patch:
        patch.setattr(benchmarks, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
        watcher = execute(spec, tmp_path / "study")
    assert {key[1] for key in scores(tmp_path / "study")} == {BASE_MODEL, "r2"}
    assert "left out, as the time budget ends: benchmarks from made_up on" in watcher.notes
    execute(spec, tmp_path / "study")
    with StudyStore.open(tmp_path / "study" / "study.db") as store:
        assert store.read_one(BudgetRecord).left_out == ("lm_eval",)
        assert len(store.read(ScoreRecord)) == 4
    execute(spec.model_copy(update={"lm_eval": (second,)}), tmp_path / "study")
    found = scores(tmp_path / "study")
    assert {key[1] for key in found if key[0] == "lm_eval:other/acc"} == {BASE_MODEL, "r2", "r4"}
    with StudyStore.open(tmp_path / "study" / "study.db") as store:
        assert store.read_one(BudgetRecord).left_out == ()


def test_a_group_is_its_tasks(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_task(tmp_path, name=name)
    group = tmp_path / "both.yaml"
    group.write_text("group: both\ntask: [one, two]\n", encoding="utf-8")
    found = [one.record for one in load_tasks([str(group)], 5)]
    assert [one.given for one in found] == [str(group)] * 2
    assert [one.documents for one in found] == [5, 5]
    assert {one.name for one in found} == {"lm_eval:one/acc", "lm_eval:two/acc"}


def test_the_first_metric_from_0_to_1_counts(tmp_path: Path) -> None:
    (found,) = load_tasks([write_task(tmp_path, metric="brier_score")], None)
    assert (found.record.metric, found.record.documents, found.record.new_tokens) == ("acc_norm", 12, 0)
    (found,) = load_tasks([write_task(tmp_path, GENERATED)], None)
    assert (found.record.metric, found.record.new_tokens) == ("exact_match", 36)


def test_bad_tasks_are_refused_before_training(
    model_folders: Mapping[str, str], rows_file: str, tmp_path: Path, lorascope: Callable[..., tuple[int, str, str]]
) -> None:
    rolling = CHOICES.replace("multiple_choice", "loglikelihood_rolling").replace("acc_norm", "byte_perplexity")
    no_task = tmp_path / "none.yaml"
    no_task.write_text("colour: green\n", encoding="utf-8")
    gone = write_task(tmp_path, name="gone")
    (tmp_path / "gone.json").unlink()
    unsafe = write_task(tmp_path, CHOICES + "unsafe_code: true\n", name="unsafe")
    cases = {
        "arc_eazy": ("the harness has no task or group of this name", "did you mean arc_easy"),
        f"{tmp_path}/missing.yaml": ("which is no file", "check the path"),
        str(no_task): ("cannot be loaded (", "correct its YAML file"),
        gone: ("cannot be loaded (", "the paths of its data"),
        unsafe: ("runs code that a model writes", "leave it out"),
        write_task(tmp_path, rolling, name="roll", metric="word_perplexity"): ("has no metric", "acc_norm"),
    }
    for given, (problem, remedy) in cases.items():
        code, _, error = lorascope(
            "run", "--model", model_folders["llama"], "--dataset", rows_file, "--lm-eval", given,
            "--out", tmp_path / "study",
        )  # fmt: skip
        assert code == 2, given
        assert problem in " ".join(error.split()), error
        assert remedy in " ".join(error.split()), error
    assert not (tmp_path / "study").exists()


def test_missing_harness_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lm_eval.tasks", None)
    with pytest.raises(InputError, match=r"not installed\n.*lorascope\[lm-eval\]"):
        load_tasks(["arc_easy"], None)


def test_flags_and_pages_name_benchmarks(
    model_folders: Mapping[str, str], rows_file: str, tmp_path: Path, lorascope: Callable[..., tuple[int, str, str]]
) -> None:
    spec = spec_of(model_folders, rows_file, seeds=(0,))
    (tmp_path / "study.yaml").write_text(json.dumps(spec.model_dump(mode="json")), encoding="utf-8")
    tasks = [write_task(tmp_path, name=name) for name in ("one", "two", "three")]
    flags = ("--lm-eval", ",".join(tasks[:2]), "--lm-eval", tasks[2], "--lm-eval-limit", "3")
    code, _, error = lorascope("run", tmp_path / "study.yaml", "--out", tmp_path / "study", *flags)
    assert code == 0, error
    with StudyStore.open(tmp_path / "study" / "study.db") as store:
        assert {(one.task, one.limit) for one in store.read(HarnessTask)} == {("one", 3), ("two", 3), ("three", 3)}
    report = (tmp_path / "study" / "report.md").read_text(encoding="utf-8")
    assert "Metrics on held-out rows and benchmarks" in report
    assert "lm\\_eval:one/acc: vs highest" in report
    _, notes, _ = lorascope("report", tmp_path / "study", "--notes")
    assert "on 3 documents" in " ".join(notes.split())
