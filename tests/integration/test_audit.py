"""``lorascope audit``: the screen, the numbers, truncation, and what it refuses."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

import lorascope as package
from lorascope.errors import InputError
from lorascope.records import EvalRecord
from lorascope.spec.peft_options import REFUSED
from lorascope.store import StudyStore
from support.studies import execute, save_model_folder, study_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # what PEFT says
Lorascope = Callable[..., tuple[int, str, str]]
QUICK = ("--samples", 0, "--forgetting-text", "none", "--device", "cpu", "--dtype", "float32", "--no-kernels")


@pytest.fixture(scope="module")
def adapter(model_folders: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that PEFT wrote: of its rank 4, little is used beyond the first direction."""
    model: Any = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(model_folders["llama"], dtype=torch.float32),
        peft.LoraConfig(r=4, lora_alpha=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator))
                (weight if "lora_A" in name else weight.T)[1:] *= 1e-3
    folder = tmp_path_factory.mktemp("audited") / "adapter"
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def changed(adapter: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the adapter with other options in its configuration."""

    def make(**options: object) -> Path:
        folder = shutil.copytree(adapter, tmp_path / "changed", dirs_exist_ok=True)
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        (folder / "adapter_config.json").write_text(json.dumps(config | options), encoding="utf-8")
        return folder

    return make


def audited(lorascope: Lorascope, adapter: Path, *flags: object) -> dict[str, Any]:
    """The audit as a program reads it."""
    code, out, err = lorascope("audit", adapter, *flags, "--json")
    assert (code, "Traceback" in err) == (0, False)
    return json.loads(out)["audit"]


def test_audit_names_the_rank_that_is_enough(
    lorascope: Lorascope, adapter: Path, rows_file: str, tmp_path: Path
) -> None:
    """A direction that holds nearly all of the update is nearly all of the loss."""
    found = audited(lorascope, adapter, "--dataset", rows_file, *QUICK)
    assert (found["rank"], found["layers"], found["eval_examples"]) == (4, 4, 40)
    assert [cut["rank"] for cut in found["cuts"]] == [1, 2]
    assert found["change"] == pytest.approx(found["eval_loss"] - found["base_eval_loss"])
    for cut in found["cuts"]:
        low, high = cut["excess_loss_ci95"]
        assert low <= cut["excess_loss"] <= high
        assert high - low < 0.005
    assert found["adequate_rank"] == 1
    assert all(part["effective_rank"] < 1.1 for part in found["spectra"])
    assert found["verdict"] == "enough"
    code, out, _ = lorascope("audit", adapter, "--truncate", 1, "--to", tmp_path / "cut")
    assert (code, out) == (0, f"{tmp_path / 'cut'}\n")
    _, out, _ = lorascope("audit", adapter, "--truncate", 2, "--to", tmp_path / "cut-2", "--json")
    assert json.loads(out) == {"audit": None, "to": str(tmp_path / "cut-2"), "truncated_to": 2}
    again = audited(lorascope, tmp_path / "cut", "--dataset", rows_file, *QUICK)
    assert again["verdict"] == "rank_one"
    assert again["eval_loss"] == pytest.approx(found["cuts"][0]["eval_loss"], rel=1e-6)


def test_a_trained_adapter_of_which_one_direction_is_enough(
    lorascope: Lorascope, model_folders: Mapping[str, str], rows_file: str, tmp_path: Path
) -> None:
    study = study_of(model_folders["llama"], rows_file, ranks=(4,), learning_rates=(0.05,), max_steps=30)
    execute(study, tmp_path / "study")
    trained = tmp_path / "study" / "adapters" / "r4"
    found = audited(lorascope, trained, "--dataset", rows_file, "--eval-examples", 40, "--tolerance", 100, *QUICK)
    assert found["change_ci95"][1] < 0
    assert found["verdict"] == "small_gain"
    within = found["cuts"][0]["excess_loss_ci95"][1] + 1e-3
    assert within < -found["change_ci95"][0]
    found = audited(lorascope, trained, "--dataset", rows_file, "--eval-examples", 40, "--tolerance", within, *QUICK)
    assert (found["verdict"], found["adequate_rank"]) == ("enough", 1)


def test_audit_fits_a_screen_and_shows_answers(
    lorascope: Lorascope, adapter: Path, rows_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = lorascope("audit", adapter, "--dataset", rows_file, "--samples", 2, "--max-new-tokens", 4)
    assert code == 0
    lines = out.splitlines()
    assert len(lines) <= 25
    assert all(len(line) <= 80 for line in lines if not line.startswith("Truncate it"))
    assert lines[0].startswith("adapter: rank 4, ")
    for start in ("Rows ", "Rank in use ", "Forgetting "):
        assert any(line.startswith(start) for line in lines)
    found = audited(lorascope, adapter, "--dataset", rows_file, "--samples", 2, "--max-new-tokens", 4)
    assert len(found["answers"]) == 2
    assert found["forgetting"]["change"] == pytest.approx(found["forgetting"]["after"] - found["forgetting"]["before"])


@pytest.mark.parametrize("options", [{}, {"init_lora_weights": "olora"}, {"modules_to_save": ("lm_head",)}])
def test_an_adapter_of_a_study_has_the_losses_of_the_study(
    lorascope: Lorascope, model_folders: Mapping[str, str], rows_file: str, tmp_path: Path, options: dict[str, Any]
) -> None:
    """Its base and its held-out rows are known; rows named again are still the held-out ones."""
    execute(study_of(model_folders["llama"], rows_file, **options), tmp_path / "study")
    adapter = tmp_path / "study" / "adapters" / "r4"
    with StudyStore.open(tmp_path / "study" / "study.db") as store:
        last = max(store.read(EvalRecord, trial_id="r4"), key=lambda record: record.step)
        first = min(store.read(EvalRecord, trial_id="r4"), key=lambda record: record.step)
    for rows in ((), ("--dataset", rows_file)):
        found = audited(lorascope, adapter, *rows)
        assert found["eval_examples"] == len(last.example_nats) == 4
        assert found["eval_loss"] == pytest.approx(last.loss, rel=1e-5)
        assert found["base_eval_loss"] == pytest.approx(first.loss, rel=1e-6)
        assert found["verdict"] == "too_few"


def test_audit_from_python(adapter: Path, rows: list[dict[str, str]], rows_file: str) -> None:
    fields: dict[str, Any] = {"samples": 0, "forgetting_text": "none", "device": "cpu", "dtype": "float32"}
    named, given = (package.audit(adapter, dataset=one, **fields) for one in (rows_file, rows))
    assert (named.eval_loss, named.cuts) == (given.eval_loss, given.cuts)
    with pytest.raises(InputError, match="ranks is not"):
        package.audit(adapter, dataset=rows_file, ranks=[8])


def assert_refused(result: tuple[int, str, str], *parts: str) -> None:
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.startswith("lorascope: ")
    assert "  -> " in err
    for part in parts:
        assert part in err


REFUSALS: dict[str, tuple[dict[str, object], str]] = {
    "prefix-tuning": ({"peft_type": "PREFIX_TUNING"}, "is PREFIX_TUNING for CAUSAL_LM"),
    "classifier": ({"task_type": "SEQ_CLS"}, "is LORA for SEQ_CLS"),
    "dora": ({"use_dora": True}, "sets use_dora (DoRA)"),
    "bias": ({"bias": "all"}, "sets bias"),
    "later-option": ({"some_option_of_tomorrow": 3}, "sets some_option_of_tomorrow"),
    "loftq": ({"init_lora_weights": "loftq"}, "began with loftq"),
    "corda": ({"init_lora_weights": "corda"}, "began with corda"),
    "rank": ({"r": 3}, "not those of rank 3"),
    "no-base": ({"base_model_name_or_path": None}, "does not name its base"),
    "base-is-gone": ({"base_model_name_or_path": "/no/such/base"}, "/no/such/base is not here"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_other_kinds_are_refused_by_name(
    name: str, lorascope: Lorascope, changed: Callable[..., Path], rows_file: str
) -> None:
    options, problem = REFUSALS[name]
    assert_refused(lorascope("audit", changed(**options), "--dataset", rows_file, *QUICK), problem)


@pytest.mark.parametrize("option", sorted(REFUSED))
def test_options_of_other_updates_are_refused_and_those_of_a_beginning_are_not(
    option: str, lorascope: Lorascope, changed: Callable[..., Path], tmp_path: Path
) -> None:
    result = lorascope("audit", changed(**{option: {"a": 1}}), "--truncate", 2, "--to", tmp_path / "cut")
    if option in {"eva_config", "corda_config", "lora_ga_config", "loftq_config"}:
        assert result[0] == 0
    else:
        assert_refused(result, f"sets {option}")


def test_another_base_is_refused_by_its_name_or_its_shapes(
    lorascope: Lorascope, changed: Callable[..., Path], model_folders: Mapping[str, str], rows_file: str
) -> None:
    other = ("--model", model_folders["opt"], "--dataset", rows_file, *QUICK)
    assert_refused(lorascope("audit", changed(), *other), "was made for the base", "not for")
    gone = changed(base_model_name_or_path="/gone/llama")
    assert_refused(lorascope("audit", gone, *other), "which the model", "does not have", "--model")


def test_a_base_of_another_size_is_refused(
    lorascope: Lorascope, changed: Callable[..., Path], model_folders: Mapping[str, str], rows_file: str, tmp_path: Path
) -> None:
    save_model_folder(tmp_path / "llama", "llama", hidden_size=48, num_attention_heads=6)
    found = lorascope("audit", changed(), "--model", tmp_path / "llama", "--dataset", rows_file, *QUICK)
    assert_refused(found, "maps 24 features to 24, and that of the model", "48 to 24")


def test_a_base_that_moved_is_taken_by_its_name(
    lorascope: Lorascope, changed: Callable[..., Path], model_folders: Mapping[str, str], rows_file: str
) -> None:
    gone = changed(base_model_name_or_path="/gone/somewhere")
    found = audited(lorascope, gone, "--model", model_folders["llama"], "--dataset", rows_file, *QUICK)
    assert "/gone/somewhere, for which the adapter was made, is not here" in found["notes"]


def test_files_that_cannot_be_read_are_refused(
    lorascope: Lorascope, adapter: Path, changed: Callable[..., Path], rows_file: str, tmp_path: Path
) -> None:
    rest = ("--dataset", rows_file, *QUICK)
    assert_refused(lorascope("audit", tmp_path / "none", *rest), "there is no folder")
    assert_refused(lorascope("audit", adapter.parent, *rest), "has no adapter_config.json", f"such as {adapter}")
    folder = changed()
    (folder / "adapter_model.safetensors").rename(folder / "kept")
    assert_refused(lorascope("audit", folder, *rest), "has no adapter_model.safetensors")
    torch.save({}, folder / "adapter_model.bin")
    assert_refused(lorascope("audit", folder, *rest), "adapter_model.bin is pickled")
    (folder / "adapter_model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{broken")
    assert_refused(lorascope("audit", folder, *rest), "cannot be read")
    (folder / "adapter_config.json").write_text("[1]")
    assert_refused(lorascope("audit", folder, *rest), "holds a list")


def test_rows_are_needed_and_must_be_several(lorascope: Lorascope, adapter: Path, tmp_path: Path) -> None:
    assert_refused(lorascope("audit", adapter, *QUICK), "no held-out rows are given", "--dataset")
    same = [{"prompt": "a", "completion": "b"}] * 3
    (tmp_path / "rows.json").write_text(json.dumps(same), encoding="utf-8")
    assert_refused(lorascope("audit", adapter, "--dataset", tmp_path / "rows.json", *QUICK), "too few held-out rows: 1")


def test_truncation_is_refused_before_anything_is_written(lorascope: Lorascope, adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    new = tmp_path / "new"
    assert_refused(lorascope("audit", adapter, "--truncate", 4, "--to", new), "has rank 4", "from 1 to 3")
    assert_refused(lorascope("audit", adapter, "--truncate", 0, "--to", new), "cannot be truncated to rank 0")
    assert_refused(lorascope("audit", adapter, "--truncate", 2, "--to", tmp_path / "there"), "exists already")
    assert_refused(lorascope("audit", adapter, "--truncate", 2), "come together")
    assert_refused(lorascope("audit", adapter, "--to", new), "come together")
    assert not new.exists()
    assert not list((tmp_path / "there").iterdir())
