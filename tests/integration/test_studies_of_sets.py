"""Two sets of target modules and two alphas in one study: each set as in a study of it alone, then compared."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lorascope.analysis import StudySummary, load_study, summarize
from lorascope.analysis.summary import SetSummary
from lorascope.records import PeftCheck, TrialRecord
from lorascope.report.write import write_report
from lorascope.run.export import export_adapter
from lorascope.store import StudyStore
from lorascope.web.monitor import StudyMonitor
from lorascope.web.parts import render_study
from support.studies import execute, read_study, study_of

pytestmark = pytest.mark.filterwarnings("ignore:fan_in_fan_out", "ignore:`is_gradient_checkpointing`")
Lorascope = Callable[..., tuple[int, str, str]]

SETS = (("q_proj", "v_proj"), "all-linear")
NAMES = ("q_proj,v_proj", "all-linear")
AXES: dict[str, Any] = {
    "alpha_rule": "fixed", "lora_alpha": (4, 16), "seeds": (0, 1), "cost": "quick", "eval_examples": 20,
    "ranks": (2, 8), "learning_rates": (5e-3,),
    "forgetting_text": "builtin:python-reference",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(model_folders: Mapping[str, str], rows_file: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets") / "study"
    execute(study_of(model_folders["llama"], rows_file, target_modules=SETS, **AXES), folder)
    return folder


@pytest.fixture(scope="module")
def summary(folder: Path) -> StudySummary:
    return summarize(folder)


def summary_of(summary: StudySummary, name: str) -> SetSummary:
    assert summary.target_sets is not None
    return next(one.summary for one in summary.target_sets.sets if one.name == name)


@pytest.mark.parametrize(("targets", "name"), list(zip(SETS, NAMES, strict=True)))
def test_each_set_has_the_numbers_of_a_study_of_it_alone(
    targets: object,
    name: str,
    folder: Path,
    summary: StudySummary,
    model_folders: Mapping[str, str],
    rows_file: str,
    tmp_path: Path,
) -> None:
    """Dropout included. The same adapters, losses, choices and verdict; float32 adds in another order."""
    execute(study_of(model_folders["llama"], rows_file, target_modules=targets, **AXES), tmp_path / "alone")
    own, alone = summary_of(summary, name), summarize(tmp_path / "alone")
    assert [trial.trial_id for trial in own.trials] == [
        trial.trial_id.replace("-a", f"-{name}-a", 1) for trial in alone.trials
    ]
    for one, other in zip(own.trials, alone.trials, strict=True):
        assert (one.steps, one.outcome, one.targets, one.lora_alpha) == (
            other.steps, other.outcome, name, other.lora_alpha,
        )  # fmt: skip
        assert one.eval_loss == pytest.approx(other.eval_loss, rel=1e-5)
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-5)
    for part, whole in zip(own.ranks, alone.ranks, strict=True):
        same = ("rank", "lora_alpha", "best_learning_rate", "seeds", "trainable_parameters", "adapter_bytes")
        assert [getattr(part, field) for field in same] == [getattr(whole, field) for field in same]
        assert part.excess_loss_ci95 == pytest.approx(whole.excess_loss_ci95, abs=1e-5)
        assert part.cost is not None
        assert part.forgetting is not None
    assert (own.verdict.kind, own.answer.status) == (alone.verdict.kind, alone.answer.status)
    for claim, claimed in zip(own.verdict.claims, alone.verdict.claims, strict=True):
        assert claim.adequate_p == pytest.approx(claimed.adequate_p, abs=1e-3)
    assert own.recommendation.use.rank == alone.recommendation.use.rank
    assert own.study.adapted_modules == alone.study.adapted_modules
    assert {cut.rank for cut in own.truncation.cuts} == {cut.rank for cut in alone.truncation.cuts}
    left, left_alone = read_study(folder), read_study(tmp_path / "alone")
    for trial in alone.trials:
        joint = left.steps[trial.trial_id.replace("-a", f"-{name}-a", 1)]
        assert [step.nats for step in joint] == pytest.approx(
            [s.nats for s in left_alone.steps[trial.trial_id]], rel=1e-5
        )


def test_sets_are_compared_at_equal_parameters_and_at_their_own_ranks(folder: Path, summary: StudySummary) -> None:
    sets = summary.target_sets
    assert sets is not None
    assert [one.name for one in sets.sets] == list(NAMES)
    assert summary.study.targets == sets.use
    assert [found.equal_parameters for found in sets.comparisons] == [True, False]
    for found in sets.comparisons:
        assert (found.first, found.second) == NAMES
        parts = [
            next(part for part in summary_of(summary, name).ranks if part.rank == rank)
            for name, rank in ((found.first, found.first_rank), (found.second, found.second_rank))
        ]
        assert found.difference == pytest.approx(parts[0].eval_loss - parts[1].eval_loss, abs=1e-9)
        assert [part.trainable_parameters for part in parts] == [found.first_parameters, found.second_parameters]
        low, high = found.difference_ci95
        assert low < found.difference < high
        if found.equal_parameters:
            few, many = sorted(part.trainable_parameters or 0 for part in parts)
            assert many / few <= sets.near
    data = load_study(folder)
    assert [one.targets for one in (data, *data.others)] == list(NAMES)
    with StudyStore.open(folder / "study.db") as store:
        planned = store.read(TrialRecord)
    assert [trial for one in (data, *data.others) for trial in one.trials] == sorted(
        planned, key=lambda trial: NAMES.index(trial.targets)
    )


def test_every_rank_of_every_set_is_proved_with_peft_and_exported(folder: Path, tmp_path: Path) -> None:
    with StudyStore.open(folder / "study.db") as store:
        checks = store.read(PeftCheck)
    assert len(checks) == 4
    assert all(check.error is None and check.layers_left_out == 0 for check in checks)
    assert "adapter_differs" not in {c.kind for name in NAMES for c in summary_of(summarize(folder), name).cautions}
    for asked, kinds in (("v_proj,q_proj", {"q_proj", "v_proj"}), ("all-linear", {"q_proj", "down_proj"})):
        export_adapter(folder, 8, tmp_path / asked, target_modules=asked, merge=False)
        config = json.loads((tmp_path / asked / "adapter_config.json").read_text())
        found = {name.rpartition(".")[2] for name in config["target_modules"]}
        assert kinds <= found
        assert ("down_proj" in found) == (asked == "all-linear")


def test_export_names_the_sets_where_it_is_not_clear_which(folder: Path, lorascope: Lorascope, tmp_path: Path) -> None:
    for given in ((), ("--target-modules", "o_proj")):
        code, _, error = lorascope("export", folder, "--rank", 8, "--to", tmp_path / "out", *given)
        assert code == 2
        assert "choose one with --target-modules: q_proj,v_proj or all-linear" in error
    assert not (tmp_path / "out").exists()


def test_report_and_terminal_show_a_table_for_each_set(folder: Path, lorascope: Lorascope) -> None:
    report = write_report(folder)
    text = report.report_md.read_text(encoding="utf-8")
    assert "## Sets of target modules" in text
    assert "| q\\_proj,v\\_proj, rank" in text
    assert text.count("equal parameters") >= 1
    assert json.loads(report.summary_json.read_text())["target_sets"]["use"] in NAMES
    code, out, _ = lorascope("report", folder)
    assert code == 0
    assert out


def test_page_names_every_number_of_the_sets_and_says_what_its_lines_are(folder: Path) -> None:
    """On a narrow screen a row is a card, whose cells are named by their column."""
    monitor = StudyMonitor(folder)
    monitor.poll()
    assert monitor._summary_thread is not None
    monitor._summary_thread.join()
    parts: Mapping[str, Any] = render_study(monitor.poll(), "en")
    shown = parts["result"].partition("Sets of target modules")[2].partition("<details>")[0]
    assert "<td>" not in shown
    assert '<td data-label="rank to use">' in shown
    assert "Loss of the first minus that of the second" in shown
    captions = {chart["name"]: chart["caption"] for chart in parts["live_charts"]}
    assert "All sets of target modules are drawn" in captions["eval_loss"]


def test_complete_study_of_sets_trains_nothing_again(
    folder: Path, model_folders: Mapping[str, str], rows_file: str
) -> None:
    watcher = execute(study_of(model_folders["llama"], rows_file, target_modules=SETS, **AXES), folder)
    assert watcher.steps == []
    assert "this study is complete; nothing was trained" in watcher.notes
