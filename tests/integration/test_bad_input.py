"""Bad input: one clear message, exit code 2, and nothing written."""

import gzip
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorascope.spec.load import load_spec
from support.studies import save_model_folder

Lorascope = Callable[..., tuple[int, str, str]]


@pytest.fixture
def refused(
    lorascope: Lorascope, model_folders: Mapping[str, str], rows_file: str, tmp_path: Path
) -> Callable[..., str]:
    """Run a study that would work but for ``changes``; return the message that refuses it."""

    def call(*study: str, out: Path | None = None, **changes: Any) -> str:
        flags = {
            "model": model_folders["llama"], "dataset": rows_file, "ranks": "2,4", "dtype": "float32", "device": "cpu",
            "cost": "off", "max_steps": 2, "per_device_train_batch_size": 4, "out": out or tmp_path / "out" / "study",
        }  # fmt: skip
        given = {name: value for name, value in (flags | changes).items() if value is not None}
        before = sorted(str(path) for path in tmp_path.rglob("*"))
        code, _, err = lorascope(
            "run",
            *study,
            *(f"--{name.replace('_', '-')}={one}" for name, value in given.items() for one in as_list(value)),
        )
        assert code == 2, err
        assert "Traceback" not in err
        after = sorted(str(path) for path in tmp_path.rglob("*") if "cache" not in path.parts)
        assert after == [path for path in before if "cache" not in Path(path).parts]
        return err

    return call


def as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def assert_one_message(err: str, *parts: str) -> None:
    """A problem and a remedy, naming what is wrong."""
    assert err.startswith("lorascope: ")
    assert err.count("\n  -> ") == 1, err
    for part in parts:
        assert part in err


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"model": "./nowhere"}, ("./nowhere", "facebook/opt-350m")),
        ({"model": "nobody/no-such-model"}, ("nobody/no-such-model", "network", "--model DIR")),
        ({"model": "builtin:other"}, ("builtin:other", "builtin:smollm2-135m")),
        ({"model": "missing.gguf"}, ("missing.gguf", "check the path")),
        ({"model": ""}, ("model", "not empty")),
        ({"dataset": "nowhere.json"}, ("nowhere.json", "check the path")),
        ({"dataset": "nobody/no-such-rows"}, ("nobody/no-such-rows", "--dataset rows.json")),
        ({"dataset": "builtin:other"}, ("builtin:other", "builtin:python-stdlib")),
        ({"split": "validation"}, ("validation", "train (40 rows)")),
        ({"split": "train[:0%]"}, ("train[:0%]", "no rows")),
        ({"split": "train[:5"}, ("train[:5", "train[:50%]")),
        ({"eval_split": "test"}, ("test", "train (40 rows)")),
        ({"dataset_format": "alpaca"}, ("instruction", "prompt, completion")),
        ({"dataset_format": "alpac"}, ("alpac", "did you mean alpaca?")),
        ({"prompt_template": "{question}"}, ("question", "prompt, completion")),
        ({"completion_template": "{completion}"}, ("prompt_template", "give both")),
        ({"max_length": 3}, ("max_length 3", "first target is token")),
        ({"max_length": 1}, ("max_length", "1", "larger number")),
        ({"split": "train[:4]"}, ("2 to train on", "give more rows")),
        ({"eval_examples": 38}, ("2 to train on (a batch takes 4)", "38 to hold out", "eval_examples")),
        ({"per_device_train_batch_size": 41}, ("a batch takes 41", "lower eval_examples")),
        ({"ranks": "0"}, ("ranks[0] is 0", "larger number")),
        ({"ranks": "8,-1"}, ("ranks[1] is -1", "larger number")),
        ({"ranks": "8,abc"}, ("ranks[1] is 'abc'", "whole number")),
        ({"ranks": "8.5"}, ("ranks[0] is 8.5", "whole number")),
        ({"ranks": ""}, ("ranks", "''", "whole number")),
        ({"ranks": "8,8"}, ("8", "more than once", "give each value once")),
        ({"ranks": "2,25"}, ("rank 25", "at most 24")),
        ({"learning_rates": "0"}, ("learning_rates[0] is 0", "larger number")),
        ({"learning_rates": "nan"}, ("learning_rates[0] is nan", "number")),
        ({"eval_examples": 1}, ("eval_examples is 1", "larger number")),
        ({"split": "train[1:]", "eval_split": "train[:1]"}, ("1 to hold out", "at least 2", "eval_split")),
        ({"tolerance": 0}, ("tolerance is 0", "larger number")),
        ({"tolerance": -1}, ("tolerance is -1", "larger number")),
        ({"lora_alpha": "2=16,3=32"}, ("lora_alpha names the ranks 2, 3", "one for each rank")),
        ({"lora_alpha": "16,16"}, ("lora_alpha names 16 more than once",)),
        ({"lora_alpha": "16,-1"}, ("lora_alpha is [16, -1]", "above 0")),
        ({"lora_alpha": "16,no"}, ("lora_alpha is [16, 'no']", "such as 16,32")),
        ({"lora_alpha": 0}, ("lora_alpha is 0", "above 0")),
        ({"lora_alpha": 8, "alpha_rule": "proportional"}, ("lora_alpha is given", "leave lora_alpha out")),
        ({"alpha_over_rank": 8}, ("alpha_over_rank is given", "fixed", "leave alpha_over_rank out")),
        ({"target_modules": ["q_proj", "nope"]}, ("target_modules nope matches no module", "q_proj")),
        ({"target_modules": ["q_proj,v_proj", "v_proj,q_proj"]}, ("the set v_proj,q_proj more than once",)),
        ({"target_modules": ["q_proj,v_proj", r".*\.[qv]_proj"]}, ("q_proj,v_proj and set2 are the same", "leave one")),
        ({"max_memory": "lots"}, ("max_memory is 'lots'", "8GB or 7.5GiB")),
        ({"max_seconds": -5}, ("max_seconds is -5", "larger number")),
        ({"max_adapter_mb": 0}, ("max_adapter_mb is 0", "larger number")),
        ({"max_adapter_mb": 0.003}, ("max_adapter_mb is 0.003", "of rank 2, takes 5.6 kB", "a rank of at most 1")),
        ({"max_adapter_mb": 0.0001}, ("of rank 2, takes 5.6 kB", "fewer layers")),
        ({"init_lora_weights": "eva"}, ("init_lora_weights eva is not supported", "pissa_niter_16")),
        ({"init_lora_weights": "pisa"}, ("init_lora_weights is 'pisa'", "gaussian")),
        ({"init_lora_weights": "pissa", "ranks": "9"}, ("at most rank 8", "rank 9")),
        ({"layers_pattern": "layers"}, ("layers_pattern is given", "layers_to_transform")),
        ({"layers_to_transform": "0,1", "target_modules": ".*q_proj"}, ("regular expression", "name endings")),
        ({"rank_pattern": "q_prj=4"}, ("rank_pattern 'q_prj' matches no target layer", "q_proj")),
        ({"rank_pattern": "q_proj"}, ("rank_pattern is 'q_proj'", "whole number")),
        ({"max_memory": "8GB"}, ("max_memory needs", "cost quick or full")),
        ({"cost": "most"}, ("cost is 'most'", "choose one of off, quick, full")),
        ({"learning_rates": "auto,1e-3"}, ("learning_rates[0] is 'auto', not a number", "the word auto alone")),
        ({"learning_rates": "fast"}, ("learning_rates[0] is 'fast', not a number", "the word auto alone")),
        ({"max_grid_extensions": -1}, ("max_grid_extensions is -1", "larger number")),
        ({"seeds": "-1"}, ("seeds[0] is -1", "larger number")),
        ({"lora_dropout": "1"}, ("lora_dropout is 1", "smaller number")),
        ({"target_modules": "q_prj"}, ("q_prj", "matches no module", "q_proj")),
        ({"target_modules": "q_proj,nothing"}, ("nothing", "q_proj")),
        ({"target_modules": "embed_tokens"}, ("embed_tokens", "Embedding", "q_proj")),
        ({"target_modules": "input_layernorm"}, ("input_layernorm", "Norm", "q_proj")),
        ({"target_modules": "lm_head"}, ("lm_head", "output head", "q_proj")),
        ({"target_modules": r".*\.nothing"}, ("nothing", "must match a whole name")),
        ({"target_modules": "(q_proj"}, ("(q_proj", "not a regular expression", "all-linear")),
        ({"device": "tpu9"}, ("tpu9", "use auto, cpu or cuda")),
        ({"dtype": "float8"}, ("float8", "choose one of")),
    ],
    ids=lambda value: "-".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_wrong_setting_is_one_message(
    refused: Callable[..., str], changes: dict[str, object], parts: tuple[str, ...]
) -> None:
    assert_one_message(refused(**changes), *parts)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device that the test needs to be absent")
def test_missing_gpu_is_refused(refused: Callable[..., str]) -> None:
    assert_one_message(refused(device="cuda"), "'cuda' cannot be used", "use auto or cpu")
    assert_one_message(refused(device="meta"), "'meta'", "use auto, cpu")


def test_wrong_settings_are_reported_together(refused: Callable[..., str]) -> None:
    err = refused(ranks="0", max_length="x", learning_rates="-1")
    assert err.startswith("lorascope: 3 problems in the study")
    assert err.count("\n  -> ") == 3


ROWS = {
    "empty.json": (b"", ("0 bytes", "rows in it")),
    "blank.jsonl": (b" \n\n", ("white space",)),
    "truncated.json": (b'[{"prompt": "a", "completion": "b"}, {"prom', ("truncated",)),
    "truncated.jsonl": (b'{"text": "a"}\n{"te', ("truncated",)),
    "truncated.parquet": (b"PAR1\x00\x00\x00", ("Parquet", "truncated")),
    "notjson.json": (b"prompt: completion", ("is not JSON", "line 1")),
    "latin1.json": ('[{"text": "caf\xe9"}]'.encode("latin-1"), ("not UTF-8", "save the file as UTF-8")),
    "utf16.csv": ("text\nhello\n".encode("utf-16"), ("not UTF-8",)),
    "norows.json": (b"[]", ("no rows",)),
    "rows.txt": (b"hello", (".txt", ".jsonl")),
    "numbers.json": (b'[{"id": 1}]', ("id",)),
    "notext.json": (json.dumps([{"prompt": "", "completion": ""}] * 30).encode(), ("without text", "prompt")),
    "null.json": (json.dumps([{"text": None}] * 30).encode(), ("text",)),
    "list.json": (b"[1, 2]", ("row 1 is a number", "object")),
    "onerow.jsonl": (b'{"text": "alone in the world"}', ("0 to train on", "give more rows")),
    "chat.json": (json.dumps([{"messages": [{"role": "user"}]}] * 30).encode(), ("assistant",)),
    "archive.json": (gzip.compress(b"[]"), ("not UTF-8",)),
}


@pytest.mark.parametrize("name", ROWS)
def test_file_without_usable_rows_is_refused(refused: Callable[..., str], tmp_path: Path, name: str) -> None:
    content, parts = ROWS[name]
    assert_one_message(refused(dataset=write(tmp_path / name, content)), *parts)


def test_folder_without_saved_rows_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    assert_one_message(refused(dataset=tmp_path / "rows"), "rows", "save_to_disk")


STUDIES: dict[str, tuple[str | bytes, str]] = {
    "empty.yaml": ("", "is empty"),
    "list.yaml": ("- 1", "holds a list"),
    "broken.yaml": ("ranks: [8", "not valid YAML"),
    "twice.yaml": ("ranks: [8]\nranks: [9]", "given twice"),
    "key.yaml": ("rank: [8]", "did you mean ranks?"),
    "latin1.yaml": (b"model: caf\xe9", "not UTF-8"),
}


@pytest.mark.parametrize("name", STUDIES)
def test_unusable_study_file_is_refused(refused: Callable[..., str], tmp_path: Path, name: str) -> None:
    content, part = STUDIES[name]
    assert_one_message(refused(write(tmp_path / name, content), ranks=None), part)


def test_unknown_preset_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    assert_one_message(refused("opt-350m-codealpacca"), "did you mean opt-350m-codealpaca?")
    assert_one_message(refused(str(tmp_path / "none.yaml")), "there is no study file")


def test_unknown_flag_is_refused(refused: Callable[..., str]) -> None:
    err = refused(rankz="8")
    assert "--rankz" in err
    assert "--ranks" in err


def copy_of(model_folders: Mapping[str, str], tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folders["llama"], tmp_path / "model"))


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def pickle_only(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    without_weights(folder)


def truncated_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-200])


def some_weights(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def other_shapes(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = torch.ones(3)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def change(name: str, **fields: Any) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        kept = {key: value for key, value in (content | fields).items() if value is not None}
        (folder / name).write_text(json.dumps(kept), encoding="utf-8")

    return apply


def without_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


MODELS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), ("no config.json", "save_pretrained")),
    "broken config": (lambda folder: (folder / "config.json").write_text("{"), ("config", "valid JSON")),
    "config of a list": (lambda folder: (folder / "config.json").write_text("[]"), ("cannot be loaded",)),
    "unknown model type": (change("config.json", model_type="llamb"), ("llamb",)),
    "no model type": (change("config.json", model_type=None), ("model_type",)),
    "no causal model": (change("config.json", model_type="vit"), ("not a causal language model",)),
    "no weights": (without_weights, ("model.safetensors",)),
    "pickled weights": (pickle_only, ("safetensors",)),
    "truncated weights": (truncated_weights, ("cannot be loaded",)),
    "empty weights": (lambda folder: (folder / "model.safetensors").write_bytes(b""), ("cannot be loaded",)),
    "some weights": (some_weights, ("model.layers.1.mlp.up_proj.weight",)),
    "weights of other shapes": (other_shapes, ("cannot be loaded", "model.norm.weight")),
    "no tokenizer": (without_tokenizer, ("tokenizer",)),
    "broken tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("{"), ("tokenizer",)),
    "no end token": (change("tokenizer_config.json", eos_token=None), ("no end token", "eos_token")),
}


@pytest.mark.parametrize("name", MODELS)
def test_unusable_model_folder_is_refused(
    refused: Callable[..., str], model_folders: Mapping[str, str], tmp_path: Path, name: str
) -> None:
    damage, parts = MODELS[name]
    folder = copy_of(model_folders, tmp_path)
    damage(folder)
    assert_one_message(refused(model=folder), str(folder), *parts)


def test_file_that_is_not_a_model_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    assert_one_message(refused(model=write(tmp_path / "model.bin", b"x")), "model.bin", ".gguf")
    for content in (b"", b"GGUF", b"GGUF\x03\x00\x00\x00" + b"\xff" * 60, b"no GGUF at all" * 9):
        assert_one_message(refused(model=write(tmp_path / "cut.gguf", content)), "cut.gguf", "whole GGUF")


def test_truncated_gguf_file_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    """Everything that describes the tensors is there, and then not all of their values."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "whole.gguf", "llama")
    writer.add_block_count(1)
    writer.add_tensor("token_embd.weight", torch.ones(64, 32).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    content = (tmp_path / "whole.gguf").read_bytes()
    assert_one_message(refused(model=write(tmp_path / "cut.gguf", content[:-1000])), "cut.gguf", "whole GGUF")


def test_tokenizer_of_another_model_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    from support.tiny_models import make_model, train_tokenizer

    make_model("llama", torch.float32).save_pretrained(tmp_path / "model")
    train_tokenizer(bos=False).save_pretrained(tmp_path / "model")
    assert_one_message(refused(model=tmp_path / "model"), "embeddings of 61 tokens")


def test_rows_longer_than_the_positions_of_the_model_are_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    for kind in ("llama", "opt", "gpt2"):
        save_model_folder(tmp_path / kind, kind, max_position_embeddings=16)
        assert_one_message(refused(model=tmp_path / kind), "16 positions", "max_length to at most 16")


def test_output_folder_with_other_files_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    file = Path(write(tmp_path / "file", "mine"))
    assert_one_message(refused(out=file), "is a file", "--out")
    assert_one_message(refused(out=file / "below" / "it"), "which is a file", "--out")
    write(tmp_path / "other.txt", "mine")
    assert_one_message(refused(out=tmp_path), "holds other files", "--out")


def test_output_folder_of_a_different_study_is_refused(
    refused: Callable[..., str], lorascope: Lorascope, model_folders: Mapping[str, str], rows_file: str, tmp_path: Path
) -> None:
    from support.studies import execute, study_of

    spec = study_of(model_folders["llama"], rows_file, max_steps=1, ranks=(2,))
    execute(spec, tmp_path / "study")
    database = (tmp_path / "study" / "study.db").read_bytes()
    assert_one_message(refused(out=tmp_path / "study"), "different study", "tokens_per_pass: 256 -> 3072", "--out")
    assert (tmp_path / "study" / "study.db").read_bytes() == database
    assert load_spec(tmp_path / "study" / "study.yaml", {}) == spec


def test_changed_rows_or_weights_are_refused(
    refused: Callable[..., str], model_folders: Mapping[str, str], rows: list[dict[str, str]], tmp_path: Path
) -> None:
    from lorascope.errors import InputError
    from support.studies import execute, study_of

    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows), encoding="utf-8")
    folder = copy_of(model_folders, tmp_path)
    spec = study_of(str(folder), str(file), max_steps=3, ranks=(2,))

    def stop(step: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(spec, tmp_path / "study", stop)
    file.write_text(json.dumps(rows[1:]), encoding="utf-8")
    with pytest.raises(InputError, match="the rows changed since"):
        execute(spec, tmp_path / "study")
    file.write_text(json.dumps(rows), encoding="utf-8")
    save_model_folder(folder, "llama", num_hidden_layers=1)
    with pytest.raises(InputError, match="the model changed since"):
        execute(spec, tmp_path / "study")


def test_unwritable_output_folder_is_refused(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked").chmod(0o500)
    if os.access(tmp_path / "locked", os.W_OK):  # root may write anywhere
        monkeypatch.setattr("lorascope.store.folder.os.access", lambda path, mode: "locked" not in str(path))
    assert_one_message(refused(out=tmp_path / "locked" / "study"), "locked/study cannot be written", "--out")


def test_full_disk_is_refused(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    usage = SimpleNamespace(total=10**9, used=10**9 - 5000, free=5000)
    monkeypatch.setattr("lorascope.store.folder.shutil.disk_usage", lambda path: usage)
    assert_one_message(refused(), "5.0 kB free", "smaller ranks")
