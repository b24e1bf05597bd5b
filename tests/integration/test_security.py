"""Untrusted models, rows and studies cannot run code, and secrets are not stored."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lorascope.engine import loop
from lorascope.errors import InputError
from lorascope.run.export import export_adapter
from lorascope.spec.load import dump_spec
from support.studies import execute, study_of

Lorascope = Callable[..., tuple[int, str, str]]
SECRET = "correct-horse-battery"


@pytest.fixture
def model(model_folders: Mapping[str, str], tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folders["llama"], tmp_path / "model"))


def change(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | fields), encoding="utf-8")


def test_remote_code_of_a_model_does_not_run(model: Path, rows_file: str, tmp_path: Path) -> None:
    mark = tmp_path / "it ran"
    for name in ("modeling_own", "tokenization_own"):
        (model / f"{name}.py").write_text(f"open({str(mark)!r}, 'w')\nclass Own: pass\n", encoding="utf-8")
    change(model / "config.json", model_type="own", auto_map={
        "AutoConfig": "modeling_own.Own", "AutoModelForCausalLM": "modeling_own.Own"})  # fmt: skip
    change(model / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_own.Own", None]})
    with pytest.raises(InputError):
        execute(study_of(str(model), rows_file), tmp_path / "study")
    assert not mark.exists()


def test_pickled_weights_are_not_loaded(model: Path, rows_file: str, tmp_path: Path) -> None:
    mark = tmp_path / "it ran"

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(mark),)

    import pickle

    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError):
        execute(study_of(str(model), rows_file), tmp_path / "study")
    assert not mark.exists()


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.mkdir('PLACE') }}",
        "{% set x = messages.append(messages[0]) %}",
        "{{ lipsum.__globals__['os'].mkdir('PLACE') }}",
    ],
)
def test_chat_template_is_sandboxed(model: Path, tmp_path: Path, attack: str) -> None:
    mark = tmp_path / "it ran"
    (model / "chat_template.jinja").unlink(missing_ok=True)
    change(model / "tokenizer_config.json", chat_template=attack.replace("PLACE", str(mark)))
    rows = [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": f"b {n}"}]} for n in range(8)
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(InputError):
        execute(study_of(str(model), str(tmp_path / "rows.json")), tmp_path / "study")
    assert not mark.exists()


def test_export_refuses_an_adapter_that_is_a_symlink(model: Path, rows_file: str, tmp_path: Path) -> None:
    execute(study_of(str(model), rows_file, max_steps=1, truncation=False), tmp_path / "study")
    (tmp_path / "private").write_text(SECRET, encoding="utf-8")
    weights = tmp_path / "study" / "adapters" / "r4" / "adapter_model.safetensors"
    weights.unlink()
    weights.symlink_to(tmp_path / "private")
    with pytest.raises(InputError, match="leads out of the study's folder"):
        export_adapter(tmp_path / "study", 4, tmp_path / "out", merge=False)
    assert not (tmp_path / "out").exists()


def test_export_refuses_a_damaged_adapter(model: Path, rows_file: str, tmp_path: Path) -> None:
    execute(study_of(str(model), rows_file, max_steps=1, truncation=False), tmp_path / "study")
    config = tmp_path / "study" / "adapters" / "r4" / "adapter_config.json"
    for content in ("{", "[]", '{"r": 0}', config.read_text(encoding="utf-8").replace('"r": 4', '"r": 3')):
        config.unlink()
        config.write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match="cannot be read"):
            export_adapter(tmp_path / "study", 4, tmp_path / "out", truncate=2, merge=False)


def test_secrets_reach_neither_store_nor_report_nor_screen(
    lorascope: Lorascope, model: Path, rows_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One in the environment that an error repeats, one on the command line, one in an address."""
    monkeypatch.setenv("HF_TOKEN", SECRET)
    (tmp_path / "my.yaml").write_text(dump_spec(study_of(str(model), rows_file, max_steps=2)), encoding="utf-8")

    def train_step(*args: Any, **kwargs: Any) -> None:
        raise ValueError(f"401 for https://me:{SECRET}@host/x, header {os.environ['HF_TOKEN']}")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", train_step)
        patch.setattr("sys.argv", ["lorascope", "run", f"--token={SECRET}"])
        code, out, err = lorascope("run", tmp_path / "my.yaml", "--out", tmp_path / "study")
    assert code == 1
    assert "401 for https://" in out
    files = [file for file in (tmp_path / "study").rglob("*") if file.is_file()]
    assert len(files) >= 4
    assert SECRET not in out + err
    for file in files:
        assert SECRET.encode() not in file.read_bytes(), file
    code, out, err = lorascope("run", "--dataset", f"https://me:{SECRET}@host/rows.json", "--out", tmp_path / "other")
    assert code == 2
    assert SECRET not in out + err
