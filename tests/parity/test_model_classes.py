"""Classes that stand for the kinds of causal models; docs/models.md has all of them."""

import pytest
import torch

import model_classes

KINDS = ("llama", "opt", "gpt2", "gemma2", "phimoe", "deepseek_v3", "mamba2", "zamba2", "gpt_neo", "cohere", "granite",
         "falcon", "qwen3_next")  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("targets", model_classes.TARGETS.values(), ids=model_classes.TARGETS)
@pytest.mark.parametrize("model_type", KINDS)
def test_class_is_studied_rightly(model_type: str, targets: str | None) -> None:
    """Base loss, joint and solo training, PEFT and merged weights."""
    found = model_classes.study(model_type, targets, torch.float32)
    assert found.outcome == "right", found.note


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("model_type", "reason"), [("xlnet", "is not causal here"), ("reformer", "no linear layer")])
def test_class_that_cannot_be_studied_is_refused_with_the_reason(model_type: str, reason: str) -> None:
    found = model_classes.study(model_type, "all-linear", torch.float32)
    assert found.outcome == "refused"
    assert reason in found.note


def test_page_lists_every_class_with_its_outcome() -> None:
    found = {
        "llama": dict.fromkeys(model_classes.TARGETS, model_classes.Found(outcome="right", note="packed")),
        "xlnet": dict.fromkeys(model_classes.TARGETS, model_classes.Found(outcome="refused", note="no | yes")),
        "blt": dict.fromkeys(model_classes.TARGETS, model_classes.Found(outcome="not made")),
    }
    page = model_classes.page(found)
    assert "| LlamaForCausalLM (llama) | right | right | packed |" in page
    assert "| XLNetLMHeadModel (xlnet) | refused | refused | no / yes |" in page
    assert "all-linear: 1 right, 1 refused" in page
    assert "works by itself: BltForCausalLM." in page
