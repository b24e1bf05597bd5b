"""Adapters over quantised bases are PEFT's, and such models are loaded, hashed, planned and refused as they should."""

import importlib.util
import json
import runpy
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from torch import nn
from torchao.quantization import Int8WeightOnlyConfig
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, TorchAoConfig
from transformers.integrations.bitsandbytes import replace_with_bnb_linear

from lorascope.engine.verify import prepare_model
from lorascope.errors import InputError
from lorascope.modeling.adapters.linear_kinds.quantised import QuantisedKind, packed_tensors, unpacked_weight
from lorascope.modeling.load import ModelSource, check_source, hash_weights, load_model
from lorascope.modeling.quantisation import (
    base_bytes,
    check_quantisation,
    count_parameters,
    loading_options,
    packed_bits,
    planned_bits,
    quantised_layers,
)
from lorascope.records import PredictionRecord, ResolvedStudy
from lorascope.store import StudyStore
from support.groups import make_spec, run_group
from support.studies import execute, study_of
from support.tiny_models import make_splits

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "one_rank.py"))
CPU = torch.device("cpu")
Lorascope = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, model_folders: Mapping[str, str]) -> dict[str, str]:
    """The same model plain, and saved quantised."""
    plain = model_folders["llama"]
    found = {"plain": plain}
    torchao = TorchAoConfig(Int8WeightOnlyConfig())
    for how in ("nf4", "int8", "torchao"):
        folder = tmp_path_factory.mktemp(how) / "model"
        if how == "torchao":
            model: Any = AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float32, quantization_config=torchao)
        else:
            model = load(plain, how)
        model.save_pretrained(folder)
        for file in Path(plain).glob("tokenizer*"):
            (folder / file.name).write_bytes(file.read_bytes())
        found[how] = str(folder)
    return found


def load(path: str, quantize: str | None = None) -> PreTrainedModel:
    return load_model(
        ModelSource(path=path, trust_remote_code=False, quantize=quantize), dtype=torch.float32, device=CPU
    )


@pytest.mark.parametrize("how", ["nf4", "int8", "torchao"])
def test_input_gradient_is_that_of_the_layer_itself(folders: Mapping[str, str], how: str) -> None:
    layers = quantised_layers(load(folders[how]))
    assert len(layers) == 14
    for layer in layers.values():
        n_in, n_out = QuantisedKind().features(layer)
        x = torch.randn(5, n_in, requires_grad=True)
        dy = torch.randn(5, n_out)
        (expected,) = torch.autograd.grad(layer(x), x, dy)
        found = QuantisedKind().add_input_gradient(layer, dy, torch.ones(5, n_in))
        torch.testing.assert_close(found - 1, expected, rtol=2e-3, atol=2e-3)
        assert unpacked_weight(layer).shape == (n_out, n_in)


@pytest.mark.parametrize("how", ["nf4", "int8", "torchao"])
def test_training_over_a_quantised_base_is_that_of_peft(folders: Mapping[str, str], how: str, tmp_path: Path) -> None:
    """From a stored model, all linear layers, against PEFT's own quantised layers."""
    spec = make_spec(ranks=(4,), lora_dropout=0.0, warmup_steps=0, target_modules="all-linear", dtype="float32")
    base = load(folders[how])
    before = hash_weights(base)
    frozen, _ = prepare_model(base, "all-linear", make_splits().train, packing=True, kernels=True)
    start: dict[str, torch.Tensor] = {}

    def keep(trials: Any) -> None:
        start.update({name: a.A.clone() for name, a in trials[0].adapter.layers.items()})

    ours = run_group(spec, frozen=frozen, prepare_trials=keep)
    assert hash_weights(base) == before

    model: Any = load(folders[how])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs: Any = peft.get_peft_model(
            model, peft.LoraConfig(r=4, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        )
    layers = {}
    for name, module in theirs.named_modules():
        if isinstance(module, peft.tuners.lora.LoraLayer):
            lora: Any = module
            A, B = lora.lora_A["default"].weight, lora.lora_B["default"].weight
            A.data.copy_(start[name.removeprefix("base_model.model.")])
            layers[name] = type("Layer", (), {"A": A, "B": B})
    assert len(layers) == len(start) == 14
    steps = list(EXAMPLE["train"](theirs, layers, make_splits().train, spec, spec.max_steps))
    np.testing.assert_allclose(ours.losses("r4"), [step.loss for step in steps], rtol=5e-3 if how == "int8" else 1e-4)
    assert abs(steps[-1].loss - steps[0].loss) > 1e-2


def test_int8_logits_do_not_depend_on_later_tokens(folders: Mapping[str, str], tmp_path: Path) -> None:
    """Outlier features, found over all tokens, are off also where a stored configuration has them on."""
    folder = shutil.copytree(folders["int8"], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"]["llm_int8_threshold"] = 0.5
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    model: Any = load(str(folder))
    ids = torch.arange(4, 20)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits[:, :8], model(ids[:, :8]).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("how", ["nf4", "int8"])
def test_a_stored_model_is_the_one_that_is_quantised_while_loading(folders: Mapping[str, str], how: str) -> None:
    stored: Any
    made: Any
    plain: Any
    stored, made, plain = load(folders[how]), load(folders["plain"], how), load(folders["plain"])
    assert hash_weights(stored) == hash_weights(made) != hash_weights(plain)
    assert count_parameters(stored) == count_parameters(plain)
    assert base_bytes(plain) == 4 * count_parameters(plain)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        difference = (stored(ids).logits - plain(ids).logits).norm() / plain(ids).logits.norm()
        assert torch.equal(stored(ids).logits, made(ids).logits)
    assert 1e-4 < difference < 0.5
    _, scales, *_ = packed_tensors(next(iter(quantised_layers(made).values())))
    scales.view(-1)[0] += 1
    assert hash_weights(stored) != hash_weights(made)


@pytest.mark.parametrize("how", ["nf4", "int8"])
def test_study_over_a_quantised_base(
    lorascope: Lorascope, folders: Mapping[str, str], rows_file: str, how: str, tmp_path: Path
) -> None:
    """Planned, run from the stored model and from the flag with equal losses, kept by hash, not merged."""
    studies = {}
    for name, model, quantize in (("stored", folders[how], None), ("flag", folders["plain"], how)):
        spec = study_of(
            model, rows_file, quantize=quantize, target_modules="all-linear", lora_dropout=0.0, cost="quick"
        )
        execute(spec, tmp_path / name)
        with StudyStore.open(tmp_path / name / "study.db") as store:
            studies[name] = store.read_one(ResolvedStudy)
            assert all(outcome.state == "finished" for outcome in store.outcomes().values())
            predicted = store.read(PredictionRecord)
        code, out, err = lorascope("plan", tmp_path / name / "study.yaml", "--json")
        assert (code, err) == (0, "")
        plan = json.loads(out)
        assert plan["base_parameters"] == studies[name].base_parameters
        assert predicted[0].base_bytes == pytest.approx(studies[name].base_bytes, rel=0.01)
        planned = plan["ranks"][0]["memory_split"]["base_bytes"]
        assert planned <= studies[name].base_bytes <= planned + 14 * 1500  # each layer has its tables
        assert studies[name].base_bytes < 0.9 * 4 * studies[name].base_parameters
    assert studies["stored"].model_hash == studies["flag"].model_hash
    for name, what in (("stored", "stores no plain weight"), ("flag", f"quantised to {how}")):
        code, _, err = lorascope("export", tmp_path / name, "--rank", 2, "--to", tmp_path / "merged", "--merge")
        assert (code, what in err) == (2, True), err
        assert lorascope("export", tmp_path / name, "--rank", 2, "--to", tmp_path / f"{name}-a")[0] == 0


SETTINGS = {
    "bitsandbytes, 4 bits": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "bitsandbytes, 8 bits": {"quant_method": "bitsandbytes", "load_in_8bit": True},
    "gptq, 4 bits": {"quant_method": "gptq", "bits": 4},
    "awq, 4 bits": {"quant_method": "awq", "bits": 4},
    "torchao, 8 bits": {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int8WeightOnlyConfig"}}},
    "hqq": {"quant_method": "hqq"},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_quantised_model_is_refused_by_its_kind_without_its_package(
    name: str, folders: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = AutoConfig.from_pretrained(folders["plain"])
    config.quantization_config = SETTINGS[name]
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(InputError) as caught:
        check_quantisation("org/model", config, None)
    assert f"model org/model is quantised ({name})" in caught.value.problem
    assert "give the unquantised model" in caught.value.remedy


def test_plain_model_is_not_quantised_without_bitsandbytes(
    folders: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = AutoConfig.from_pretrained(folders["plain"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    check_quantisation("a", config, None)
    with pytest.raises(InputError, match="quantize nf4, and bitsandbytes is not installed"):
        check_quantisation("a", config, "nf4")


def test_quantised_model_is_not_quantised_again(folders: Mapping[str, str]) -> None:
    with pytest.raises(InputError, match=r"is quantised \(bitsandbytes, 4 bits\) and cannot be quantised again"):
        check_quantisation("a", AutoConfig.from_pretrained(folders["nf4"]), "int8")


def test_plain_weights_under_a_quantised_configuration_are_refused(folders: Mapping[str, str], tmp_path: Path) -> None:
    AutoModelForCausalLM.from_pretrained(folders["plain"]).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    written["quantization_config"] = SETTINGS["bitsandbytes, 4 bits"]
    (tmp_path / "config.json").write_text(json.dumps(written), encoding="utf-8")
    not_packed = r"\(bitsandbytes, 4 bits\), but its weights are not packed"
    with pytest.raises(InputError, match=not_packed):
        load(str(tmp_path))
    with pytest.raises(InputError, match=not_packed):  # by the headers of its files
        check_source(ModelSource(path=str(tmp_path), trust_remote_code=False), "a")


@pytest.mark.parametrize(
    ("name", "device", "refused"),
    [
        ("gptq, 4 bits", "auto", True),
        ("awq, 4 bits", "cpu", True),
        ("hqq", "auto", True),
        ("gptq, 4 bits", "L4", False),  # another machine, which may have the package
        ("hqq", "L4", True),
    ],
)
def test_plan_refuses_the_quantised_models_that_a_run_refuses(
    name: str, device: str, refused: bool, folders: Mapping[str, str], lorascope: Lorascope, tmp_path: Path
) -> None:
    config = AutoConfig.from_pretrained(folders["plain"])
    config.quantization_config = SETTINGS[name]
    config.save_pretrained(tmp_path)
    code, _, err = lorascope("plan", "--model", tmp_path, "--dataset", "org/rows", "--ranks=2", f"--device={device}")
    assert code == (2 if refused else 0)
    assert (f"is quantised ({name})" in err) == refused


@pytest.mark.parametrize("how", ["plain", "nf4", "int8", "torchao"])
def test_packed_weights_are_told_from_plain_ones_by_their_files(folders: Mapping[str, str], how: str) -> None:
    check_source(ModelSource(path=folders[how], trust_remote_code=False), "a")


@pytest.mark.parametrize(("how", "bits"), [("nf4", 4.127), ("int8", 8.0)])
def test_packed_weights_take_the_bits_that_are_planned(how: str, bits: float, folders: Mapping[str, str]) -> None:
    model: Any = nn.Sequential(nn.Linear(1024, 2048, bias=False)).requires_grad_(requires_grad=False)
    config = loading_options(how, torch.float32, CPU)["quantization_config"]
    replace_with_bnb_linear(model, quantization_config=config, pre_quantized=False)
    kind: Any = type(model[0].weight)
    model[0].weight = kind(torch.randn(2048, 1024), requires_grad=False, **vars(model[0].weight)).to("cpu")
    assert packed_bits(model) == pytest.approx(bits, rel=0.01)
    assert planned_bits(AutoConfig.from_pretrained(folders["plain"]), how) == pytest.approx(bits, rel=0.001)
