from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lorascope.errors import InputError, SpecError
from lorascope.spec.fields.lora import NAME
from lorascope.spec.load import dump_spec, find_study, load_spec, preset_names
from lorascope.spec.schema import StudySpec

NAMES = st.lists(st.from_regex(NAME, fullmatch=True), min_size=1, max_size=3)
"""Name endings of layers."""


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "study.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_defaults_are_used_where_nothing_is_given() -> None:
    assert load_spec(None, {}) == StudySpec()
    assert StudySpec().target_modules == "all-linear"
    assert load_spec(None, {"target_modules": None}).target_modules is None


def test_flags_override_the_file_and_defaults_come_last(tmp_path: Path) -> None:
    path = write(tmp_path, "ranks: [4, 16]\nmax_steps: 7\nlearning_rates: [5e-5]\n")
    spec = load_spec(path, {"ranks": (2,)})
    assert (spec.ranks, spec.max_steps, spec.learning_rates, spec.seeds) == ((2,), 7, (5e-5,), (0,))


def test_every_error_is_reported_with_path_value_and_remedy(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "ranks: [8, 0, many]\nrank: 3\nalpha_rule: fixd\nlearning_rates: 1e-4\ntarget_modules: [1]\n"
        "seeds: [0, 0]\nmax_steps: 2.5\nlora_dropout: 1\ncompletion_template: '{output}'\n",
    )
    with pytest.raises(SpecError) as caught:
        load_spec(path, {"packing": "perhaps"})
    problems = {error.problem.split(" is ")[0]: error for error in caught.value.errors}
    assert set(problems) == {
        "ranks[1]",
        "ranks[2]",
        "rank",
        "alpha_rule",
        "learning_rates",
        "target_modules",
        "seeds",
        "max_steps",
        "lora_dropout",
        "packing",
        "completion_template needs a prompt_template",
    }
    assert "ranks[1] is 0" in problems["ranks[1]"].problem
    assert "many" in problems["ranks[2]"].problem
    assert problems["rank"].remedy == "did you mean ranks?"
    assert problems["alpha_rule"].remedy.startswith("did you mean fixed?")
    assert "[0] given more than once" in problems["seeds"].problem
    for error in caught.value.errors:
        assert f"{error.problem}\n  -> {error.remedy}" in str(caught.value)


def test_cross_field_rule_is_not_reported_after_a_field_error() -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(None, {"prompt_template": 3, "completion_template": "{output}"})
    assert [error.problem for error in caught.value.errors] == ["prompt_template is 3: input should be a valid string"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        (b"model: \xff\xfe", "not UTF-8"),
        ("ranks: [8, 128\nmodel: x", "not valid YAML"),
        ("a: b\x00", "not valid YAML"),
        ("when: 2024-13-45", "not valid YAML"),
        ("ranks: [8]\nmodel: x\nranks: [16]\n", "the key 'ranks' is given twice (line 3, column 1)"),
        ("? [a]\n: b\n", "not valid YAML"),
        ("- 8\n- 128\n", "holds a list"),
        ("just text", "holds a str"),
    ],
)
def test_an_invalid_study_file_is_one_input_error(tmp_path: Path, content: str | bytes, said: str) -> None:
    with pytest.raises(InputError) as caught:
        load_spec(write(tmp_path, content), {})
    assert type(caught.value) is InputError
    assert said in caught.value.problem
    assert caught.value.remedy


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no study file"):
        load_spec(tmp_path / "absent.yaml", {})
    with pytest.raises(InputError, match="is a folder"):
        load_spec(tmp_path, {})


def test_yaml_cannot_make_objects(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not valid YAML"):
        load_spec(write(tmp_path, "model: !!python/object/apply:os.getcwd []"), {})


@given(
    ranks=st.lists(st.integers(1, 4096), min_size=1, max_size=4, unique=True),
    learning_rates=st.lists(st.floats(1e-12, 10), min_size=1, max_size=3, unique=True),
    prompt=st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    targets=st.one_of(st.none(), st.just("all-linear"), NAMES, st.lists(NAMES, unique_by=frozenset, max_size=3)),
    max_steps=st.one_of(st.none(), st.integers(1, 10**9)),
)
def test_a_dumped_study_loads_equal(
    tmp_path_factory: pytest.TempPathFactory,
    ranks: list[int],
    learning_rates: list[float],
    prompt: str,
    targets: object,
    max_steps: int | None,
) -> None:
    spec = load_spec(
        None,
        {
            "ranks": ranks,
            "learning_rates": learning_rates,
            "prompt_template": prompt,
            "target_modules": targets,
            "max_steps": max_steps,
        },
    )
    text = dump_spec(spec)
    assert load_spec(write(tmp_path_factory.mktemp("dump"), text), {}) == spec
    assert list(yaml.safe_load(text)) == list(StudySpec.model_fields)


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"lora_alpha": {8: 16}}, ("lora_alpha names the ranks 8, and ranks are 8, 128, 256", "one for each rank")),
        ({"lora_alpha": (16, 32, 16)}, ("lora_alpha names 16 more than once", "give each alpha once")),
        ({"lora_alpha": {8: 16, 128: 0, 256: 4}}, ("lora_alpha is {8: 16, 128: 0, 256: 4}", "8=16,64=32")),
        ({"lora_alpha": (16, 32, 64), "alpha_rule": "proportional"}, ("alpha_over_rank * r", "leave lora_alpha out")),
        ({"lora_alpha": 16, "alpha_rule": "proportional"}, ("alpha_over_rank * r", "fixed or rslora")),
        ({"alpha_over_rank": 2, "alpha_rule": "rslora"}, ("rslora takes lora_alpha", "leave alpha_over_rank out")),
        ({"lora_alpha": 0}, ("lora_alpha is 0", "above 0")),
        ({"lora_alpha": (16, -1, 4)}, ("lora_alpha is [16, -1, 4]", "several to try such as 16,32")),
        ({"lora_alpha": "many"}, ("lora_alpha is 'many'", "such as 32")),
        ({"lora_alpha": ()}, ("lora_alpha is []",)),
        ({"tolerance": 0}, ("tolerance is 0", "larger number")),
        ({"tolerance": -0.01}, ("tolerance is -0.01", "larger number")),
        ({"tolerance": float("nan")}, ("tolerance is nan", "give a number")),
        ({"convergence_band": 0}, ("convergence_band is 0", "larger number")),
        ({"convergence_band": 1}, ("convergence_band is 1", "smaller number")),
        ({"eval_examples": 1}, ("eval_examples is 1", "larger number")),
        ({"max_memory": "8"}, ("max_memory is '8'", "with its unit", "8GB or 7.5GiB")),
        ({"max_memory": 8_000_000_000}, ("max_memory is 8000000000", "8GB or 7.5GiB")),
        ({"max_memory": "-1GB"}, ("max_memory is '-1GB'", "8GB or 7.5GiB")),
        ({"max_memory": "0 GB"}, ("max_memory is '0 GB'", "above 0")),
        ({"max_seconds": 0}, ("max_seconds is 0", "larger number")),
        ({"max_seconds": float("inf")}, ("max_seconds is inf", "give a number")),
        ({"max_adapter_mb": -3}, ("max_adapter_mb is -3", "larger number")),
        ({"max_adapter_mb": "50MB"}, ("max_adapter_mb is '50MB'", "give a number")),
        ({"max_memory": "8GB", "cost": "off"}, ("max_memory needs", "cost quick or full")),
        ({"max_seconds": 60, "cost": "off"}, ("max_seconds needs", "cost quick or full")),
    ],
)
def test_contradictions_are_one_error_with_a_remedy(fields: dict[str, Any], parts: tuple[str, ...]) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(None, fields)
    assert len(caught.value.errors) == 1
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("alpha", [[16, 32, 64.5], {8: 16, 128: 32, 256: 64.5}])
def test_alphas_and_limits_load_equal(tmp_path: Path, alpha: object) -> None:
    spec = load_spec(None, {"lora_alpha": alpha, "max_memory": "7.5GiB", "max_seconds": 90, "max_adapter_mb": 5})
    assert load_spec(write(tmp_path, dump_spec(spec)), {}) == spec


def test_presets_load_with_the_settings_of_the_published_study() -> None:
    specs = {name: load_spec(find_study(name), {}) for name in preset_names()}
    assert set(specs) == {"demo", "opt-350m-codealpaca", "opt-350m-codealpaca-alpha32"}
    assert {spec.target_modules for spec in specs.values()} == {("q_proj", "k_proj", "v_proj")}
    reference = specs["opt-350m-codealpaca"]
    assert (reference.model, reference.dataset) == ("facebook/opt-350m", "sahil2801/CodeAlpaca-20k")
    assert reference.prompt_template == "### Question: {instruction}\n ### Answer: "
    assert (reference.split, reference.max_length, reference.num_train_epochs) == ("train[:50%]", 128, 3)
    assert (reference.alpha_rule, reference.alpha_over_rank, reference.lora_dropout) == ("proportional", 4, 0.1)
    fixed = specs["opt-350m-codealpaca-alpha32"]
    assert fixed == reference.model_copy(update={"alpha_rule": "fixed", "lora_alpha": 32.0})
    assert specs["demo"].model.startswith("builtin:")
    assert specs["demo"].dataset == "builtin:python-stdlib"


def test_an_unknown_preset_lists_the_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        find_study("opt-350m-codealpacca")
    assert "did you mean opt-350m-codealpaca?" in caught.value.remedy
    assert all(name in caught.value.remedy for name in preset_names())
    with pytest.raises(InputError):
        find_study("x" * 5000)
    assert find_study("mine.yaml") == Path("mine.yaml")
    (tmp_path / "mine").write_text("ranks: [8]")
    assert find_study("mine") == Path("mine")


def test_automatic_rates_are_read_and_written_as_a_word(tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path, "learning_rates: auto\n"), {})
    assert spec.learning_rates == "auto"
    assert "learning_rates: auto" in dump_spec(spec)


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("fast", "learning_rates is 'fast', not a list of numbers"),
        ("[auto, 1.0e-3]", "learning_rates[0] is 'auto', not a number"),
        ("[1.0e-3, 0]", "learning_rates[1] is 0: input should be greater than 0"),
        ("[]", "learning_rates is []"),
        ("3", "learning_rates is 3"),
    ],
)
def test_wrong_learning_rates_are_one_error_each(tmp_path: Path, written: str, problem: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(write(tmp_path, f"learning_rates: {written}\n"), {})
    (error,) = caught.value.errors
    assert error.problem.startswith(problem)


@pytest.mark.parametrize(
    ("text", "flags", "cost"),
    [
        ("cost: off", {}, "off"),  # a bare off is false to YAML
        ("cost: 'off'", {}, "off"),
        ("cost: full", {}, "full"),
        ("ranks: [8]", {}, "quick"),
    ],
)
def test_cost_is_read_from_files_and_flags(tmp_path: Path, text: str, flags: dict[str, object], cost: str) -> None:
    (tmp_path / "study.yaml").write_text(text)
    spec = load_spec(tmp_path / "study.yaml", flags)
    assert spec.cost == cost
    (tmp_path / "again.yaml").write_text(dump_spec(spec))
    assert load_spec(tmp_path / "again.yaml", {}) == spec


@pytest.mark.parametrize("name", ["use_dora", "bias", "eva_config", "use_qalora"])
def test_options_of_peft_that_a_study_cannot_have_are_refused_with_the_reason(name: str) -> None:
    with pytest.raises(SpecError, match=f"{name} is not supported: .* (LoRA|base|update|rank)"):
        load_spec(None, {name: True})


def test_patterns_come_back_from_the_file(tmp_path: Path) -> None:
    spec = StudySpec(rank_pattern={"a.b": 3, r".*\.(q|k)": 5}, alpha_pattern={"v": 1.5}, layers_to_transform=(0, 3))
    assert load_spec(write(tmp_path, dump_spec(spec)), {}) == spec


def test_a_time_budget_tries_rates_and_goes_on_until_decided() -> None:
    spec = load_spec(None, {"time_budget": "20min"})
    assert (spec.budget_seconds, spec.learning_rates, spec.until_decided) == (1200.0, "auto", True)
    assert load_spec(None, {}).budget_seconds is None


@pytest.mark.parametrize(
    "given",
    [{"ranks": (8,)}, {"seeds": (0, 1)}, {"until_decided": False}, {"target_modules": [["q_proj"], ["v_proj"]]}],
)
def test_a_time_budget_leaves_a_study_fixed_that_cannot_go_on(given: dict[str, object]) -> None:
    spec = load_spec(None, {"time_budget": "20min", "learning_rates": (1e-3,), **given})
    assert not spec.until_decided
    assert spec.learning_rates == (1e-3,)


@pytest.mark.parametrize("time", ["20", "-1min", "soon", 20])
def test_a_time_budget_without_a_unit_is_refused(time: object) -> None:
    with pytest.raises(SpecError, match="90s, 20min or 1h30min"):
        load_spec(None, {"time_budget": time})
