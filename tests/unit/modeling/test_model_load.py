"""Which errors of loading a model are the user's to mend, and which are raised as they are."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lorascope.errors import InputError
from lorascope.modeling import load, meta_model
from lorascope.modeling.load import ModelSource, load_model, load_tokenizer
from lorascope.modeling.meta_model import empty_model

SOURCE = ModelSource(path="somebody/model", trust_remote_code=False)
LOADS: list[Callable[[], object]] = [
    lambda: load_tokenizer(SOURCE),
    lambda: load_model(SOURCE, dtype=torch.float32, device=torch.device("cpu")),
    lambda: empty_model(SOURCE),
]


@pytest.mark.parametrize("run", LOADS)
@pytest.mark.parametrize("error", [KeyError("model_type"), TypeError("not a mapping"), OSError("no such model")])
def test_what_transformers_raises_is_said_of_the_model(
    monkeypatch: pytest.MonkeyPatch, run: Callable[[], object], error: Exception
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    for loader in (AutoConfig, AutoModelForCausalLM):
        monkeypatch.setattr(loader, "from_pretrained", refuse)
    with pytest.raises(InputError, match="somebody/model cannot be loaded"):
        run()


@pytest.mark.parametrize("run", LOADS)
def test_a_bug_of_this_package_is_raised(monkeypatch: pytest.MonkeyPatch, run: Callable[[], object]) -> None:
    for module in (load, meta_model):
        monkeypatch.setattr(module, "quiet", None)
    with pytest.raises(TypeError, match="not callable"):
        run()


@pytest.mark.parametrize("part", ["null", '"all"', "[]"])
def test_a_configuration_with_a_damaged_part_is_said_to_lack_sizes(tmp_path: Path, part: str) -> None:
    (tmp_path / "config.json").write_text(f'{{"model_type": "llama", "text_config": {part}}}', encoding="utf-8")
    with pytest.raises(InputError, match=r"does not say hidden_size|cannot be loaded"):
        empty_model(ModelSource(path=str(tmp_path), trust_remote_code=False))
