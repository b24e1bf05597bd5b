"""Models and tokenizers with files that are missing, damaged, newer, or not the model's own."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import CLIPConfig, DistilBertConfig, PretrainedConfig, PreTrainedModel, T5Config

from lorascope.costmodel.plan import plan_study
from lorascope.engine.reference import take_reference
from lorascope.errors import InputError
from lorascope.modeling.gguf_check import passed_over
from lorascope.modeling.load import (
    ModelSource,
    check_source,
    has_adapter,
    hash_weights,
    load_model,
    load_tokenizer,
    save_model,
)
from lorascope.modeling.meta_model import empty_model
from lorascope.spec.schema import StudySpec
from support.studies import save_model_folder
from support.tiny_models import make_examples, make_model

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("model")
    save_model_folder(made, "llama")
    return made


def source(folder: Path) -> ModelSource:
    return ModelSource(path=str(folder), trust_remote_code=False)


def load(folder: Path) -> PreTrainedModel:
    return load_model(source(folder), dtype=torch.float32, device=torch.device("cpu"))


def test_adapter_in_the_folder_of_the_base_is_not_loaded(folder: Path, tmp_path: Path) -> None:
    before = load(folder)
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert not has_adapter(source(tmp_path))
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(load(folder), config).save_pretrained(str(tmp_path))
    after = load(tmp_path)
    assert has_adapter(source(tmp_path))
    assert hash_weights(after) == hash_weights(before)
    assert [name for name, _ in after.named_modules()] == [name for name, _ in before.named_modules()]


@pytest.mark.parametrize("damage", ["newer", "cut", "merge", "empty", "list"])
def test_tokenizer_that_cannot_be_read_is_named(damage: str, folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    written = (tmp_path / "tokenizer.json").read_text()
    content = json.loads(written)
    if damage == "newer":
        content["pre_tokenizer"] = {"type": "PartOfALaterRelease"}
    elif damage == "merge":
        content["model"]["merges"].append(
            ["the", "sum"] if isinstance(content["model"]["merges"][0], list) else "the sum"
        )
    text = {"cut": written[:-50], "empty": "", "list": "[]"}.get(damage, json.dumps(content))
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(InputError, match="tokenizer of model"):
        load_tokenizer(source(tmp_path))


def test_configuration_alone_can_be_planned_and_has_no_tokenizer(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(InputError, match="tokenizer of model"):
        load_tokenizer(source(tmp_path))
    spec = StudySpec(model=str(tmp_path), dataset="builtin:humaneval", ranks=(2, 4), max_length=64, device="L4")
    assert plan_study(spec).rows == "assumed: 64 tokens each"


def write_gguf(file: Path, model: PreTrainedModel, *, scaling: str | None = None, extra: str | None = None) -> Path:
    writer = gguf.GGUFWriter(file, "llama")
    if scaling is not None:
        writer.add_string("llama.rope.scaling.type", scaling)
    for number, parameter in enumerate(model.parameters()):
        writer.add_tensor(f"blk.{number}.weight", parameter.numpy())
    if extra is not None:
        writer.add_tensor(extra, np.ones(8, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.mark.parametrize(
    ("scaling", "extra", "found"),
    [
        (None, None, None),
        ("none", None, None),
        ("yarn", None, "the scaling of its rotary angles (yarn)"),
        (None, "rope_freqs.weight", "8 numbers of its tensors, among them perhaps rope_freqs.weight"),
        (None, "blk.0.attn_q.bias", "8 numbers of its tensors, among them perhaps blk.0.attn_q.bias"),
    ],
)
def test_gguf_with_more_than_the_model_uses_is_noticed(
    scaling: str | None, extra: str | None, found: str | None, tmp_path: Path
) -> None:
    model = make_model("llama", torch.float32)
    assert passed_over(write_gguf(tmp_path / "a.gguf", model, scaling=scaling, extra=extra), model) == found


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (T5Config(), "an encoder-decoder model .t5."),
        (CLIPConfig(), "a model that takes images .clip."),
        (DistilBertConfig(), "not a causal language model .distilbert."),
    ],
)
def test_model_that_is_not_causal_is_refused_by_what_it_is(config: PretrainedConfig, kind: str, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    for refuse in (lambda: check_source(source(tmp_path), "mine"), lambda: empty_model(source(tmp_path))):
        with pytest.raises(InputError, match=kind):
            refuse()


def test_code_of_the_model_s_own_needs_the_flag(folder: Path, tmp_path: Path) -> None:
    written = json.loads((folder / "config.json").read_text())
    written |= {"model_type": "mine", "auto_map": {"AutoConfig": "configuration_mine.MineConfig"}}
    (tmp_path / "config.json").write_text(json.dumps(written))
    (tmp_path / "configuration_mine.py").write_text("raise SystemExit")
    with pytest.raises(InputError, match="allow it with --trust-remote-code"):
        check_source(source(tmp_path), "mine")


def test_generation_settings_that_contradict_each_other_are_saved_as_they_are(folder: Path, tmp_path: Path) -> None:
    model = load(folder)
    model.generation_config.temperature = 0.6  # which has no effect without do_sample
    save_model(model, load_tokenizer(source(folder)), tmp_path)
    assert json.loads((tmp_path / "generation_config.json").read_text())["temperature"] == 0.6
    assert load(tmp_path).generation_config.temperature == 0.6


def test_row_longer_than_a_model_s_buffers_is_one_error() -> None:
    model = make_model("llama", torch.float32)
    embedding = model.get_input_embeddings().get_parameter("weight")
    embedding.data = embedding.data[:30]
    with pytest.raises(InputError, match="cannot compute a row of"):
        take_reference(model, make_examples(4))


def test_truncation_and_padding_that_a_tokenizer_file_asks_for_are_left_out(folder: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(source(folder))
    text = "the sum of two numbers, and more text than that"
    whole = tokenizer(text)["input_ids"]
    assert len(whole) > 4
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    tokenizer.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "tokenizer.json").read_text())
    written["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    written["padding"] = {
        "strategy": {"Fixed": 40}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 1, "pad_type_id": 0,
        "pad_token": "</s>",
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(written))
    assert load_tokenizer(source(tmp_path))([text])["input_ids"] == [whole]
