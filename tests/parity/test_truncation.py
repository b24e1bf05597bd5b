"""Truncated adapters equal PEFT's SVD of the full update."""

from pathlib import Path
from typing import Any, cast

import peft
import pytest
import torch
from peft import LoraConfig, PeftModel

from lorascope.modeling.adapters.peft_io import truncate_peft
from support.tiny_models import make_model

pytestmark = pytest.mark.filterwarnings("ignore:fan_in_fan_out", "ignore:`is_gradient_checkpointing`")
TARGETS = {"llama": ["q_proj", "k_proj", "v_proj"], "opt": ["q_proj", "k_proj", "v_proj"], "gpt2": ["c_attn"]}


def trained(kind: str, *, rslora: bool) -> PeftModel:
    """An adapter of rank 6 whose every matrix is random, and its copy: PEFT decomposes sums only."""
    config = LoraConfig(
        r=6, lora_alpha=9, use_rslora=rslora, target_modules=TARGETS[kind], fan_in_fan_out=kind == "gpt2",
        task_type="CAUSAL_LM",
    )  # fmt: skip
    model = peft.get_peft_model(make_model(kind), config, autocast_adapter_dtype=False)
    model.add_adapter("copy", config, autocast_adapter_dtype=False)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        weights = dict(model.named_parameters())
        for name in [name for name in weights if ".default." in name]:
            weights[name].copy_(torch.randn(weights[name].shape, generator=generator, dtype=torch.float64))
            weights[name.replace(".default.", ".copy.")].copy_(weights[name])
    return model


def layers_of(model: PeftModel) -> dict[str, Any]:
    return {name: module for name, module in model.named_modules() if hasattr(module, "get_delta_weight")}


def product(layer: Any, adapter: str) -> torch.Tensor:
    return (layer.lora_B[adapter].weight @ layer.lora_A[adapter].weight).detach()


@pytest.mark.parametrize("rslora", [False, True], ids=["plain", "rslora"])
def test_truncated_adapter_equals_peft(kind: str, rslora: bool, tmp_path: Path) -> None:
    model = trained(kind, rslora=rslora)
    model.save_pretrained(str(tmp_path / "whole"), selected_adapters=["default"])
    # PEFT wrote name endings into the file; lorascope writes full names and reads what it wrote
    saved = LoraConfig.from_pretrained(str(tmp_path / "whole"))
    saved.target_modules = [name.removeprefix("base_model.model.") for name in layers_of(model)]
    saved.save_pretrained(tmp_path / "whole")
    truncate_peft(tmp_path / "whole", tmp_path / "cut", 3)
    model.add_weighted_adapter(["default", "copy"], [0.5, 0.5], "theirs", combination_type="svd", svd_rank=3)
    loaded = PeftModel.from_pretrained(make_model(kind), tmp_path / "cut", autocast_adapter_dtype=False)
    config = cast("LoraConfig", loaded.peft_config["default"])
    assert (config.r, config.lora_alpha, config.use_rslora) == (3, 3, False)
    ours, theirs = layers_of(loaded), layers_of(model)
    assert ours.keys() == theirs.keys()
    for name, layer in ours.items():
        assert layer.scaling["default"] == 1.0
        found = product(layer, "default")
        assert torch.linalg.matrix_rank(found) == 3
        assert theirs[name].scaling["theirs"] == pytest.approx(3**0.5 if rslora else 1.0)
        # Their factors hold the scale, too; what PEFT multiplies them with afterwards is not 1 for an rsLoRA adapter
        torch.testing.assert_close(found, product(theirs[name], "theirs"), rtol=1e-10, atol=1e-10)
