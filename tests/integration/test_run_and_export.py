"""A complete run, the files of its folder, and export."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import datasets
import peft
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from lorascope.analysis import summarize
from lorascope.records import ResolvedStudy
from lorascope.spec.load import dump_spec, load_spec
from lorascope.store import StudyStore
from support.studies import KINDS, execute, own_logits, read_study, study_of
from support.tiny_models import make_examples

# What peft and transformers say of each other is not ours to mend
pytestmark = pytest.mark.filterwarnings("ignore:fan_in_fan_out", "ignore:`is_gradient_checkpointing`")
Lorascope = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def studies(
    model_folders: Mapping[str, str], rows_file: str, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Path]:
    """A finished study of each kind of model."""
    root = tmp_path_factory.mktemp("studies")
    for kind in KINDS:
        rule = "rslora" if kind == "opt" else "proportional"
        execute(study_of(model_folders[kind], rows_file, alpha_rule=rule), root / kind)
    return {kind: root / kind for kind in KINDS}


def plain_logits(model: torch.nn.Module) -> list[torch.Tensor]:
    with torch.no_grad():
        return [model.eval()(torch.from_numpy(row.input_ids)[None]).logits[0] for row in make_examples(4)]


def base_of(folder: Path) -> PreTrainedModel:
    model = load_spec(folder / "study.yaml", {}).model
    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval().requires_grad_(requires_grad=False)


def assert_same_logits(one: list[torch.Tensor], other: list[torch.Tensor]) -> None:
    for ours, theirs in zip(one, other, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * theirs.abs().max().item())


def test_run_writes_every_file_and_a_valid_summary(
    lorascope: Lorascope, tmp_path: Path, model_folders: Mapping[str, str], rows_file: str
) -> None:
    spec = study_of(model_folders["llama"], rows_file, cost="quick")
    (tmp_path / "my.yaml").write_text(dump_spec(spec), encoding="utf-8")
    folder = tmp_path / "study"
    code, out, err = lorascope("run", tmp_path / "my.yaml", "--out", folder, "--json")
    assert code == 0
    assert out == (folder / "summary.json").read_text(encoding="utf-8")
    assert "step=6/6 rank=4 " in err
    assert "Warning" not in err
    assert {path.name for path in folder.iterdir()} == {
        "study.yaml", "study.db", "adapters", "charts", "charts.zip", "report.html", "report.md", "runs.csv",
        "summary.json",
    }  # fmt: skip
    assert load_spec(folder / "study.yaml", {}) == spec
    for rank in spec.ranks:
        names = {path.name for path in (folder / "adapters" / f"r{rank}").iterdir()}
        assert names == {"adapter_config.json", "adapter_model.safetensors"}
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert [trial["outcome"] for trial in summary["trials"]] == ["finished", "finished"]
    assert [rank["rank"] for rank in summary["ranks"]] == [2, 4]
    assert all(rank["eval_loss"] > 0 and rank["step_seconds"] > 0 for rank in summary["ranks"])
    assert summary["study"]["eval_examples"] == 4
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert page.count("<mark>") >= page.count('<p class="note">Row ') == 3
    assert (folder / "report.md").read_text(encoding="utf-8").count("[[") >= 3


@pytest.mark.parametrize("kind", KINDS)
def test_adapter_gives_the_same_logits_in_peft(studies: Mapping[str, Path], kind: str) -> None:
    folder, rows = studies[kind], make_examples(4)
    adapter = folder / "adapters" / "r2"
    spec = load_spec(folder / "study.yaml", {})
    base = plain_logits(base_of(folder))
    theirs = plain_logits(peft.PeftModel.from_pretrained(base_of(folder), adapter))
    assert max((a - b).abs().max().item() for a, b in zip(theirs, base, strict=True)) > 1e-2
    assert_same_logits(own_logits(spec, base_of(folder), adapter, rows), theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_export_writes_the_adapter_and_the_merged_model(
    lorascope: Lorascope, studies: Mapping[str, Path], kind: str, tmp_path: Path
) -> None:
    source = studies[kind] / "adapters" / "r4"
    assert lorascope("export", studies[kind], "--rank", 4, "--to", tmp_path / "a")[0] == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()} == {
        path.name: path.read_bytes() for path in source.iterdir()
    }
    code, out, err = lorascope("export", studies[kind], "--rank", 4, "--to", tmp_path / "merged", "--merge")
    assert (code, out, err) == (0, f"{tmp_path / 'merged'}\n", "")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    adapted = peft.PeftModel.from_pretrained(base_of(studies[kind]), source)
    assert_same_logits(plain_logits(merged), plain_logits(adapted))
    text = "add two numbers"
    ids = [
        AutoTokenizer.from_pretrained(path)(text)["input_ids"]
        for path in (tmp_path / "merged", base_path(studies[kind]))
    ]
    assert ids[0] == ids[1]


def base_path(folder: Path) -> str:
    return load_spec(folder / "study.yaml", {}).model


def test_export_of_an_adapter_whose_file_is_gone_says_where_it_was(
    lorascope: Lorascope, studies: Mapping[str, Path], tmp_path: Path
) -> None:
    """The study is complete: to run it to its end would bring nothing back."""
    study = shutil.copytree(studies["llama"], tmp_path / "study")
    (study / "adapters" / "r4" / "adapter_model.safetensors").unlink()
    code, _, err = lorascope("export", study, "--rank", 4, "--to", tmp_path / "new")
    assert code == 2
    assert f"there is no adapter of rank 4 in {study / 'adapters' / 'r4'}" in err
    assert "if it is complete, bring the adapter's files back from a copy" in err


def test_export_refuses_a_missing_rank(lorascope: Lorascope, studies: Mapping[str, Path], tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("")
    for rank, to, what in (
        (3, tmp_path / "new", "no rank 3"),
        (4, tmp_path / "there", "exists already"),
        (4, tmp_path / "file" / "below", "is a file"),
    ):
        code, _, err = lorascope("export", studies["llama"], "--rank", rank, "--to", to)
        assert code == 2
        assert what in err
        assert err.count("\n") == 2
        assert not to.exists() or not list(to.iterdir())


def test_export_merges_all_linear_layers(
    lorascope: Lorascope, model_folders: Mapping[str, str], rows_file: str, tmp_path: Path
) -> None:
    spec = study_of(model_folders["opt"], rows_file, target_modules="all-linear", ranks=(2,), max_steps=2)
    execute(spec, tmp_path / "study")
    assert lorascope("export", tmp_path / "study", "--rank", 2, "--to", tmp_path / "merged", "--merge")[0] == 0
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    adapter = tmp_path / "study" / "adapters" / "r2"
    assert_same_logits(
        plain_logits(merged), plain_logits(peft.PeftModel.from_pretrained(base_of(tmp_path / "study"), adapter))
    )
    assert_same_logits(own_logits(spec, base_of(tmp_path / "study"), adapter, make_examples(4)), plain_logits(merged))


def test_adapter_of_a_rank_is_that_of_its_best_learning_rate(
    model_folders: Mapping[str, str], rows_file: str, tmp_path: Path
) -> None:
    spec = study_of(
        model_folders["llama"],
        rows_file,
        learning_rates=(1e-5, 1e-2),
        seeds=(0, 1),
        ranks=(2, 4),
        max_grid_extensions=0,
    )
    execute(spec, tmp_path / "study")
    adapters = read_study(tmp_path / "study").adapters
    folders = {Path(name).parts[1] for name in adapters}
    trials = {f"r{r}-lr{rate}{seed}" for r in (2, 4) for rate in ("1e-05", "0.01") for seed in ("", "-s1")}
    assert folders == {"r2", "r4"} | trials
    for rank in summarize(tmp_path / "study").ranks:
        best = f"r{rank.rank}-lr{rank.best_learning_rate!r}"
        assert best in trials
        for name in ("adapter_model.safetensors", "adapter_config.json"):
            assert adapters[f"adapters/r{rank.rank}/{name}"] == adapters[f"adapters/{best}/{name}"]
    assert len({value for name, value in adapters.items() if name.endswith("safetensors")}) == len(trials)


def test_rows_give_the_same_study_in_every_file_format(
    model_folders: Mapping[str, str], rows_file: str, rows: list[dict[str, str]], tmp_path: Path
) -> None:
    table = pa.Table.from_pylist(rows)
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    pa.csv.write_csv(table, tmp_path / "rows.csv")
    pa.parquet.write_table(table, tmp_path / "rows.parquet")
    datasets.Dataset(table).save_to_disk(tmp_path / "saved")
    hashes = {}
    for source in (rows_file, *(str(tmp_path / name) for name in ("rows.jsonl", "rows.csv", "rows.parquet", "saved"))):
        folder = tmp_path / f"study-{Path(source).suffix}"
        execute(study_of(model_folders["llama"], source, max_steps=1, ranks=(2,)), folder)
        with StudyStore.open(folder / "study.db") as store:
            hashes[source] = store.read_one(ResolvedStudy).data_hash
    assert len(hashes) == 5
    assert len(set(hashes.values())) == 1
