"""The Python interface: the same studies from names and from objects in memory, and what is refused."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

import lorascope
from lorascope.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # PEFT's

FIELDS: dict[str, Any] = {
    "ranks": [2, 4], "learning_rates": [1e-3], "eval_examples": 6, "max_steps": 3, "eval_steps": 3, "cost": "off",
    "per_device_train_batch_size": 2, "truncation": False, "forgetting_text": "none", "target_modules": ["q_proj"],
}  # fmt: skip


@pytest.fixture(scope="module")
def objects(model_folders: Mapping[str, str]) -> tuple[Any, Any]:
    folder = model_folders["llama"]
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)


def losses(study: lorascope.Study) -> list[float | None]:
    return [part.eval_loss for part in study.summary.ranks]


def test_objects_give_the_study_that_names_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_folders: Mapping[str, str], rows_file: str, objects: Any
) -> None:
    monkeypatch.setenv("LORASCOPE_CACHE", str(tmp_path / "cache"))
    model, tokenizer = objects
    rows = json.loads(Path(rows_file).read_text(encoding="utf-8"))
    named = lorascope.run(
        model=model_folders["llama"], train_dataset=rows_file, out=tmp_path / "named", progress=False, **FIELDS
    )
    assert all(loss is not None for loss in losses(named))
    for number, given in enumerate((rows, Dataset.from_list(rows))):
        study = lorascope.run(
            model=model, tokenizer=tokenizer, train_dataset=given, out=tmp_path / str(number), progress=False, **FIELDS
        )
        assert losses(study) == losses(named)
    assert (tmp_path / "named" / "report.html").is_file()
    adapted = named.to_peft(AutoModelForCausalLM.from_pretrained(model_folders["llama"]), rank=4)
    assert adapted.peft_config["default"].r == 4
    assert named.best_adapter(2) == tmp_path / "named" / "adapters" / "r2"
    with pytest.raises(InputError, match="no adapter of rank 8"):
        named.best_adapter(8)


def test_held_out_rows_are_those_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_folders: Mapping[str, str], rows: list[dict[str, str]]
) -> None:
    monkeypatch.setenv("LORASCOPE_CACHE", str(tmp_path / "cache"))
    fields = {name: value for name, value in FIELDS.items() if name != "eval_examples"}
    study = lorascope.run(
        model=model_folders["llama"], train_dataset=rows[:30], eval_dataset=rows[30:], out=tmp_path / "study",
        progress=False, **fields,
    )  # fmt: skip
    assert study.data.resolved is not None
    assert (study.data.resolved.train_examples, study.data.resolved.eval_examples) == (30, 10)


def test_plan_takes_the_same_fields(model_folders: Mapping[str, str], rows_file: str) -> None:
    planned = lorascope.plan(model=model_folders["llama"], train_dataset=rows_file, device="L4", **FIELDS)
    assert [part.rank for part in planned.ranks] == [2, 4]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"tokenizer": "a tokenizer"}, "without a model object"),
        ({"model": 3}, "model is a int"),
        ({"train_dataset": {"prompt": "a"}}, "the rows of train are a dict"),
        ({"train_dataset": "rows.json", "eval_dataset": [{"text": "a"}]}, "eval_dataset is given beside it"),
        ({"eval_dataset": [{"text": "a"}]}, "without train_dataset"),
        ({"ranks": [0]}, "ranks"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, given: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        lorascope.run(out=tmp_path / "study", **given)
    assert not (tmp_path / "study").exists()


def test_models_that_are_no_base_are_refused(tmp_path: Path, objects: Any, model_folders: Mapping[str, str]) -> None:
    from peft import LoraConfig, get_peft_model

    _, tokenizer = objects
    base: Any = AutoModelForCausalLM.from_pretrained(model_folders["llama"])
    adapted: Any = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"]))
    unloaded: Any = AutoModelForCausalLM.from_pretrained(model_folders["llama"])
    for model, problem in ((adapted.base_model.model, "adapters in it"), (unloaded.to("meta"), "no weights")):
        with pytest.raises(InputError, match=problem):
            lorascope.run(model=model, tokenizer=tokenizer, out=tmp_path / "study")
    with pytest.raises(InputError, match="no tokenizer"):
        lorascope.run(model=objects[0], out=tmp_path / "study")
