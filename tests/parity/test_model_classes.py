"""Classes that stand for the kinds of causal models; docs/models.md has all of them."""

import pytest
import torch
from transformers import AutoModelForCausalLM

import model_classes
from lorascope.costmodel.planned_layers import planned_sets
from lorascope.engine.verify import check_model
from lorascope.spec.schema import StudySpec
from tiny_configs import tiny_config

KINDS = ("llama", "opt", "gpt2", "gemma2", "phimoe", "deepseek_v3", "mamba2", "zamba2", "gpt_neo", "cohere", "granite",
         "falcon", "qwen3_next")  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", model_classes.TARGETS)
@pytest.mark.parametrize("model_type", KINDS)
def test_class_is_studied_rightly(model_type: str, what: str) -> None:
    """Base loss, joint and solo training, PEFT and merged weights."""
    found = model_classes.study(model_type, what, torch.float32)
    without_experts = what == "experts" and model_type not in {"phimoe", "deepseek_v3", "qwen3_next"}
    assert found.outcome == ("none" if without_experts else "right"), found.note


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("model_type", "reason"), [("xlnet", "is not causal here"), ("reformer", "no linear layer")])
def test_class_that_cannot_be_studied_is_refused_with_the_reason(model_type: str, reason: str) -> None:
    found = model_classes.study(model_type, "all-linear", torch.float32)
    assert found.outcome == "refused"
    assert reason in found.note


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("targets", [None, "all-linear"])
@pytest.mark.parametrize("model_type", ["llama", "gpt2", "phimoe", "glm4_moe", "mamba2", "zamba2", "whisper"])
def test_plan_adapts_the_layers_that_a_run_adapts(model_type: str, targets: str | None) -> None:
    """Among them models with layers that no token passes, or whose adapters PEFT does not load."""
    spec = StudySpec(target_modules=targets, ranks=(2,))
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(tiny_config(model_type)).requires_grad_(requires_grad=False).eval()
    sets, notes = planned_sets(empty, spec)
    model, rows = model_classes.make_model(model_type, torch.float32), model_classes.make_splits().train
    assert sets[""] == tuple(check_model(spec, model, rows, None).frozen.layers)
    assert notes == []


def test_plan_says_where_values_decide_which_layers_tokens_pass() -> None:
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(tiny_config("xmod")).eval()
    assert [note.code for note in planned_sets(empty, StudySpec(ranks=(2,)))[1]] == ["plan.layers_unknown"]


def test_page_lists_every_class_with_its_outcome() -> None:
    found = {
        "llama": dict.fromkeys(model_classes.TARGETS, model_classes.Found(outcome="right", note="packed")),
        "xlnet": dict.fromkeys(model_classes.TARGETS, model_classes.Found(outcome="refused", note="no | yes")),
        "blt": dict.fromkeys(model_classes.TARGETS, model_classes.Found(outcome="not made")),
    }
    page = model_classes.page(found)
    assert "| LlamaForCausalLM (llama) | right | right | right | packed |" in page
    assert "| XLNetLMHeadModel (xlnet) | refused | refused | refused | no / yes |" in page
    assert "all-linear: 1 right, 1 refused" in page
    assert "works by itself: BltForCausalLM." in page
