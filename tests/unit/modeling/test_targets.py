import warnings

import peft
import pytest

from lorascope.errors import InputError
from lorascope.message import Message
from lorascope.modeling.targets import check_ranks, find_targets, swap_in
from support.tiny_models import make_model

Modules = tuple[str, ...] | str

TARGETS: dict[str, list[Modules]] = {
    "llama": [
        ("q_proj",), ("q_proj", "v_proj"), ("self_attn.q_proj",), ("layers.1.mlp.up_proj",), ("1.self_attn.k_proj",),
        ("model.layers.0.self_attn.o_proj",), "all-linear", r".*\.(q|k)_proj", r"model\.layers\.1\..*_proj",
    ],
    "opt": [("q_proj", "k_proj", "v_proj"), ("fc1",), ("project_in",), "all-linear", r".*layers\.0.*fc[12]"],
    "gpt2": [("c_attn",), ("attn.c_proj",), ("c_proj",), "all-linear", r"transformer\.h\.[01]\.mlp\.c_fc"],
}  # fmt: skip


def peft_s_choice(kind: str, target_modules: Modules) -> list[str]:
    given = list(target_modules) if isinstance(target_modules, tuple) else target_modules
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what peft and transformers say of each other
        model = peft.get_peft_model(make_model(kind), peft.LoraConfig(task_type="CAUSAL_LM", target_modules=given))
    return [
        name.removeprefix("base_model.model.")
        for name, module in model.named_modules()
        if isinstance(module, peft.tuners.lora.LoraLayer)
    ]


@pytest.mark.parametrize(("kind", "target_modules"), [(kind, t) for kind, given in TARGETS.items() for t in given])
def test_targets_equal_those_of_peft(kind: str, target_modules: Modules) -> None:
    ours = find_targets(make_model(kind), target_modules)
    assert len(ours) >= 1
    assert sorted(ours) == sorted(peft_s_choice(kind, target_modules))


@pytest.mark.parametrize("kind", ["llama", "opt", "gpt2"])
def test_targets_without_a_name_are_query_key_and_value(kind: str) -> None:
    endings = {"gpt2": {"c_attn"}}.get(kind, {"q_proj", "k_proj", "v_proj"})
    model = make_model(kind)
    found = find_targets(model, None)
    assert {name.rpartition(".")[2] for name in found} == endings
    assert len(found) == model.config.num_hidden_layers * len(endings)


@pytest.mark.parametrize("target_modules", [("proj",), ("_proj",), ("q_proj", "Q_PROJ"), r"q_proj", ()])
def test_targets_do_not_match_a_part_of_a_name(target_modules: Modules) -> None:
    with pytest.raises(InputError, match=r"matches no module"):
        find_targets(make_model("llama"), target_modules)


@pytest.mark.parametrize("name", ["embed_tokens", "norm", "self_attn", "lm_head", "act_fn"])
def test_targets_that_cannot_take_lora_are_named(name: str) -> None:
    with pytest.raises(InputError, match=rf"matches \S*{name}, which is .*cannot take LoRA here\n.*q_proj"):
        find_targets(make_model("llama"), (name,))


def test_targets_are_replaced_under_their_names() -> None:
    model = make_model("gpt2")
    before = dict(model.named_modules())
    layers = swap_in(model, find_targets(model, ("c_attn",)))
    for name, layer in layers.items():
        assert model.get_submodule(name) is layer
        assert layer.base is before[name]


def test_rank_above_the_size_of_layers_is_noted_or_refused() -> None:
    model = make_model("llama")
    layers = swap_in(model, find_targets(model, ("q_proj", "k_proj")))
    assert check_ranks(layers, (2, 8)) == []
    (note,) = check_ranks(layers, (8, 9))
    assert note == Message("rank.above_layers", rank=9, layers="k_proj", limit=8)
    with pytest.raises(InputError, match=r"rank 25 is larger .*\n.*at most 24"):
        check_ranks(layers, (8, 25))
