"""A study in a notebook."""

import html
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import altair as alt
import pytest

import lorascope
from lorascope import Study
from lorascope.errors import InputError
from lorascope.text.say import say

MakeStudy = Callable[..., Path]
NOTEBOOK = Path(__file__).parents[3] / "examples" / "read_a_study.ipynb"


def test_importing_lorascope_is_lazy() -> None:
    code = "import sys, lorascope; print('numpy' in sys.modules); lorascope.Study; print('numpy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "True"]
    with pytest.raises(AttributeError, match="no attribute 'Studies'"):
        lorascope.Studies  # noqa: B018


def test_study_repr_html_shows_verdict_and_escapes_names(make_study: MakeStudy) -> None:
    study = Study.open(make_study(model="<script>alert(1)</script>"))
    shown = study._repr_html_()
    assert say(study.summary.answer.text) in html.unescape(shown)
    assert "&lt;script&gt;" in shown
    assert "<script>" not in shown
    assert shown.count("<tr>") == 1 + 4


def test_study_frames_equal_summary_and_records(make_study: MakeStudy) -> None:
    study = Study.open(str(make_study()))
    ranks, trials = study.frame(), study.frame("trials")
    assert ranks["eval_loss"].tolist() == [part.eval_loss for part in study.summary.ranks]
    assert ranks["eval_loss_ci95_low"][0] == study.summary.ranks[0].eval_loss_ci95[0]
    assert trials["trial_id"].tolist() == ["r8", "r128", "r256"]
    steps = study.frame("steps")
    assert len(steps) == 3 * 80
    assert steps[steps.trial_id == "r128"].nats.tolist() == study.data.steps["r128"].nats.tolist()
    evaluations = study.frame("evaluations")
    assert evaluations[evaluations.trial_id == "r8"].eval_loss.iloc[-1] == study.summary.trials[0].eval_loss


def test_study_frame_refuses_unknown_tables_and_missing_pandas(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study.open(make_study())
    with pytest.raises(InputError, match="no table of 'rank'"):
        study.frame("rank")  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pip install pandas"):
        study.frame()


def test_study_charts_are_altair_charts(make_study: MakeStudy) -> None:
    charts = Study.open(make_study()).charts
    assert {"train_loss", "eval_loss", "excess_loss_by_rank", "runtime"} <= set(charts)
    assert all(isinstance(chart, alt.LayerChart) for chart in charts.values())
    assert charts["train_loss"].to_dict(validate=True)["title"] == "Training loss"


def test_study_report_writes_the_files(make_study: MakeStudy) -> None:
    folder = make_study()
    assert Study.open(folder).report().report_html == folder / "report.html"
    assert (folder / "summary.json").is_file()


def test_study_open_refuses_a_folder_without_a_study(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no study store"):
        Study.open(tmp_path)


@pytest.mark.filterwarnings("ignore")  # what the notebook's programs say of their own future is not ours to mend
def test_example_notebook_runs(build_study: MakeStudy, tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    (tmp_path / "studies").mkdir()
    build_study(tmp_path / "studies" / "demo")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.get("outputs") for cell in notebook.cells)
    nbclient.NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = json.dumps([cell.get("outputs", []) for cell in notebook.cells])
    assert "vega" in shown
    assert "held-out loss" in shown
    assert (tmp_path / "studies" / "demo" / "report.html").is_file()
