"""An adapter that lorascope cuts is the one that PEFT's own decomposition of the whole update gives."""

from pathlib import Path

import peft
import pytest
import torch
from peft import LoraConfig, PeftModel

from lorascope.modeling.peft_io import truncate_peft
from tiny import make_model

pytestmark = pytest.mark.filterwarnings("ignore:fan_in_fan_out", "ignore:`is_gradient_checkpointing`")
TARGETS = {"llama": ["q_proj", "k_proj", "v_proj"], "opt": ["q_proj", "k_proj", "v_proj"], "gpt2": ["c_attn"]}


def trained(kind: str, *, rslora: bool) -> PeftModel:
    """An adapter of rank 6 whose every matrix is random."""
    config = LoraConfig(
        r=6, lora_alpha=9, use_rslora=rslora, target_modules=TARGETS[kind], fan_in_fan_out=kind == "gpt2",
        task_type="CAUSAL_LM",
    )  # fmt: skip
    model = peft.get_peft_model(make_model(kind), config, autocast_adapter_dtype=False)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def deltas(model: PeftModel, adapter: str) -> dict[str, torch.Tensor]:
    layers = {name: module for name, module in model.named_modules() if hasattr(module, "get_delta_weight")}
    return {name: layer.get_delta_weight(adapter).detach() for name, layer in layers.items()}


@pytest.mark.parametrize("rslora", [False, True], ids=["plain", "rslora"])
def test_a_cut_adapter_equals_peft_s(kind: str, rslora: bool, tmp_path: Path) -> None:
    model = trained(kind, rslora=rslora)
    model.save_pretrained(tmp_path / "whole")
    # PEFT's adapter_config names endings where lorascope writes full names; both are files of PEFT
    full_names = [name.removeprefix("base_model.model.") for name in deltas(model, "default")]
    saved = LoraConfig.from_pretrained(tmp_path / "whole")
    saved.target_modules = full_names
    saved.save_pretrained(tmp_path / "whole")
    truncate_peft(tmp_path / "whole", tmp_path / "cut", 3)
    model.add_weighted_adapter(["default"], [1.0], "theirs", combination_type="svd", svd_rank=3)
    loaded = PeftModel.from_pretrained(make_model(kind), tmp_path / "cut", autocast_adapter_dtype=False)
    config = loaded.peft_config["default"]
    assert (config.r, config.lora_alpha, config.use_rslora) == (3, 3, False)
    ours, theirs = deltas(loaded, "default"), deltas(model, "theirs")
    assert ours.keys() == theirs.keys()
    for name, delta in ours.items():
        assert torch.linalg.matrix_rank(delta) == 3
        torch.testing.assert_close(delta, theirs[name], rtol=1e-10, atol=1e-10)
