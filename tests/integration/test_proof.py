"""Proof at the end of a study: PEFT gives the reported loss with the saved adapters, or the study says so."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorascope.analysis import summarize
from lorascope.modeling.adapters import peft_check
from lorascope.modeling.adapters.stored_adapter import CONFIG, WEIGHTS
from lorascope.modeling.load import hash_weights
from lorascope.records import EvalRecord, PeftCheck
from lorascope.run import proof, study
from lorascope.run.context import RunContext
from lorascope.store import StudyStore
from lorascope.text.say import say
from support.studies import execute, study_of
from support.tiny_models import make_model

pytestmark = pytest.mark.filterwarnings("ignore:fan_in_fan_out", "ignore:`is_gradient_checkpointing`")


def checks(folder: Path) -> tuple[list[PeftCheck], dict[tuple[str, int], EvalRecord]]:
    with StudyStore.open(folder / "study.db") as store:
        return store.read(PeftCheck), {(r.trial_id, r.step): r for r in store.read(EvalRecord)}


def kinds(folder: Path) -> list[str]:
    return [caution.kind for caution in summarize(folder).cautions]


@pytest.mark.parametrize("kind", ["llama", "opt", "gpt2"])
def test_peft_gives_the_reported_loss(
    kind: str, model_folders: Mapping[str, str], rows_file: str, tmp_path: Path
) -> None:
    execute(study_of(model_folders[kind], rows_file, target_modules="all-linear"), tmp_path / "study")
    found, evaluations = checks(tmp_path / "study")
    assert [check.trial_id for check in found] == ["r2", "r4"]
    for check in found:
        assert (check.layers_left_out, check.error) == (0, None)
        for nats, step in ((check.base_nats, 0), (check.nats, 6)):
            reported = [evaluations[check.trial_id, step].example_nats[row] for row in check.rows]
            assert nats == pytest.approx(reported, rel=1e-5)
        assert check.nats != pytest.approx(check.base_nats, rel=1e-3)
    assert "adapter_differs" not in kinds(tmp_path / "study")


def less_alpha(folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {"lora_alpha": config["lora_alpha"] / 2}))


def another_name(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file({name.replace("v_proj", "o_proj"): tensor for name, tensor in tensors.items()}, folder / WEIGHTS)


def no_such_layer(folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {"target_modules": ["no_such_layer"]}))


@pytest.mark.parametrize("damage", [less_alpha, another_name, no_such_layer])
def test_adapter_that_is_not_what_was_measured_is_the_gravest_caution(
    damage: Callable[[Path], None],
    model_folders: Mapping[str, str],
    rows_file: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def spoil_and_prove(run: RunContext) -> None:
        damage(run.folder.trial_adapter("r4"))
        proof.prove_adapters(run)

    monkeypatch.setattr(study, "prove_adapters", spoil_and_prove)
    execute(study_of(model_folders["llama"], rows_file), tmp_path / "study")
    first = summarize(tmp_path / "study").cautions[0]
    assert first.kind == "adapter_differs"
    assert "r4" in say(first.text)
    assert "r2" not in say(first.text)


def test_study_without_peft_says_that_nothing_was_compared(
    model_folders: Mapping[str, str], rows_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "peft_is_installed", lambda: False)
    watcher = execute(study_of(model_folders["llama"], rows_file), tmp_path / "study")
    assert checks(tmp_path / "study")[0] == []
    assert any("not loaded with PEFT" in note for note in watcher.notes)


def test_loading_with_peft_leaves_the_model_as_it_was() -> None:
    model = make_model("llama", torch.float32)
    before, names, own = hash_weights(model), [name for name, _ in model.named_modules()], set(vars(model))
    targets = [name for name in names if name.endswith("_proj")]
    assert peft_check.unloadable_layers(model, targets) == frozenset()
    assert peft_check.unloadable_layers(model, [*targets, "lm_head"]) == frozenset()
    assert (hash_weights(model), [name for name, _ in model.named_modules()]) == (before, names)
    assert set(vars(model)) == own
    assert not any(parameter.requires_grad for parameter in model.parameters())
