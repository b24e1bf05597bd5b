"""The notebook of the reference study, executed on the CPU with a tiny model in place of OPT-350M."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

import lorascope

NOTEBOOK = Path(__file__).parents[2] / "examples" / "study_on_a_gpu.ipynb"


@pytest.mark.filterwarnings("ignore")  # what the notebook's programs say of their own future is not ours to mend
def test_notebook_of_the_reference_study_runs(
    model_folders: Mapping[str, str], rows: list[dict[str, str]], tmp_path: Path
) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.get("outputs") for cell in notebook.cells)
    asked = [{"instruction": row["prompt"], "output": row["completion"]} for row in rows]
    (tmp_path / "rows.json").write_text(json.dumps(asked), encoding="utf-8")
    changes = {
        "model": model_folders["opt"], "dataset": "rows.json", "ranks": [2, 4], "max_steps": 2, "cost": "off",
        "target_modules": ["q_proj", "v_proj"], "samples": 1, "max_new_tokens": 4, "forgetting_text": "none",
        "truncation": False, "kernels": False, "device": "cpu",
    }  # fmt: skip
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    parameters.source += f"\nINSTALL, TIME_BUDGET, CHANGES = '', None, {changes!r}"
    nbclient.NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = {cell.id: json.dumps(cell.get("outputs", [])) for cell in notebook.cells}
    assert "rank 2: " in outputs["cell-5"]
    assert "held-out" in outputs["cell-7"]
    assert "srcdoc" in outputs["cell-9"]
    assert (tmp_path / "study.zip").is_file()
    assert "adapters" in outputs["cell-11"]


@pytest.mark.parametrize(
    ("seconds", "said"), [(None, "a time unknown until the rows are read"), (90, "about 2 minutes")]
)
def test_notebook_says_what_the_plan_does_not_know(
    seconds: float | None, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = SimpleNamespace(model="a/model", device="T4", dtype="float16", total_seconds=seconds, ranks=())
    monkeypatch.setattr(lorascope, "plan", lambda study, **changes: found)
    (cell,) = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["id"] == "cell-5"]
    exec("".join(cell["source"]), {"STUDY": "opt-350m-codealpaca", "CHANGES": {}})
    assert capsys.readouterr().out == f"a/model on T4, float16: all steps take {said}\n"
