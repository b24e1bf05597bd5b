"""A PEFT LoraConfig as the starting point of a study."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest

from lorascope.cli.flags import given_fields, make_flags
from lorascope.errors import InputError, SpecError
from lorascope.spec.load import load_spec
from lorascope.spec.peft_options import REFUSED
from lorascope.spec.schema import StudySpec


def saved(folder: Path, **options: Any) -> Path:
    """PEFT's own file of a configuration; returns its folder."""
    config: Any = peft.LoraConfig
    config(task_type="CAUSAL_LM", **options).save_pretrained(folder)
    return folder


def test_options_of_a_configuration_are_the_fields_of_the_study(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "target_modules": ["v_proj"], "lora_dropout": 0.25, "layers_to_transform": 1, "layers_pattern": "layers",
        "rank_pattern": {"v_proj": 3}, "alpha_pattern": {"layers.1": 5}, "init_lora_weights": "gaussian",
        "exclude_modules": ["k_proj"],
    }  # fmt: skip
    folder = saved(tmp_path, r=16, lora_alpha=24, use_rslora=True, base_model_name_or_path="a/b", **options)
    expected = StudySpec(
        model="a/b", ranks=(16,), lora_alpha=24.0, alpha_rule="rslora", target_modules=("v_proj",), lora_dropout=0.25,
        layers_to_transform=(1,), layers_pattern="layers", rank_pattern={"v_proj": 3}, alpha_pattern={"layers.1": 5.0},
        init_lora_weights="gaussian", exclude_modules=("k_proj",),
    )  # fmt: skip
    assert load_spec(None, {}, folder) == load_spec(None, {}, folder / "adapter_config.json") == expected


@pytest.mark.parametrize("targets", ["all-linear", r".*\.1\..*"])
def test_defaults_of_a_configuration_are_those_of_peft(targets: str, tmp_path: Path) -> None:
    written = load_spec(None, {}, saved(tmp_path, target_modules=targets))
    (tmp_path / "short.json").write_text(json.dumps({"target_modules": targets}))
    assert load_spec(None, {}, tmp_path / "short.json") == written
    assert written == StudySpec(ranks=(8,), lora_alpha=8.0, target_modules=targets)


def test_options_that_are_zero_or_false_are_read(tmp_path: Path) -> None:
    """Block 0 alone is not every block."""
    folder = saved(tmp_path / "block", target_modules=["v_proj"], layers_to_transform=0)
    assert load_spec(None, {}, folder).layers_to_transform == (0,)
    folder = saved(tmp_path / "start", target_modules=["v_proj"], init_lora_weights=False)
    with pytest.raises(SpecError, match="init_lora_weights false is not supported"):
        load_spec(None, {}, folder)


def test_study_file_and_flags_win_over_a_configuration(tmp_path: Path) -> None:
    folder = saved(tmp_path, r=16, lora_alpha=24, target_modules=["v_proj"], base_model_name_or_path="a/b")
    (tmp_path / "study.yaml").write_text("model: c/d\nlora_dropout: 0.5\nranks: [2]")
    spec = load_spec(tmp_path / "study.yaml", {"ranks": (4, 8)}, folder)
    assert (spec.model, spec.lora_dropout, spec.ranks, spec.lora_alpha) == ("c/d", 0.5, (4, 8), 24.0)
    spec = load_spec(None, {"alpha_rule": "proportional", "target_modules": "all-linear"}, folder)
    assert (spec.alpha_rule, spec.lora_alpha, spec.target_modules) == ("proportional", 32.0, "all-linear")


@pytest.mark.parametrize("name", REFUSED)
def test_refused_options_are_refused_by_name_wherever_they_come_from(name: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"target_modules": "all-linear", name: {"some": "value"}}))
    (tmp_path / "study.yaml").write_text(f"{name}: some value")
    flag = given_fields(make_flags()(**{name: True}))
    sources: list[Any] = [(None, {}, tmp_path), (tmp_path / "study.yaml", {}), (None, flag)]
    for arguments in sources:
        with pytest.raises(SpecError) as caught:
            load_spec(*arguments)
        assert f"{name} is not supported: {REFUSED[name]}" in str(caught.value)


@pytest.mark.parametrize("value", [False, None, [], {}, "none", "None", "false"])
def test_refused_options_at_their_defaults_change_nothing(value: object) -> None:
    assert load_spec(None, dict.fromkeys(REFUSED, value)) == StudySpec()


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("{", ("is not JSON",)),
        ("[1]", ("holds a list",)),
        ('{"peft_type": "IA3"}', ("configures IA3", "trains LoRA")),
        ('{"task_type": "SEQ_CLS"}', ("SEQ_CLS", "causal language model")),
        ('{"target_modules": ["q_proj"], "new_option": 3}', ("new_option", "take new_option out")),
        ('{"r": 4}', ("no target_modules", "--target-modules")),
        ('{"target_modules": ["q_proj"], "lora_dropout": 2}', ("lora_dropout is 2", "smaller")),
        ('{"target_modules": ["q_proj"], "init_lora_weights": "eva"}', ("init_lora_weights eva", "activations")),
        (None, ("cannot be read", "No such file", "adapter_config.json")),
    ],
)
def test_configurations_that_a_study_cannot_have_are_refused(
    content: str | None, parts: tuple[str, ...], tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(InputError) as caught:
        load_spec(None, {}, tmp_path)
    assert all(part in str(caught.value) for part in parts), str(caught.value)
