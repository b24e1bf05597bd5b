"""Models whose logits, positions, masks or layers are not Llama's: the loss is that of Transformers, row by row."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    DeepseekV3Config,
    DogeConfig,
    FalconConfig,
    Gemma2Config,
    Glm4MoeConfig,
    GPTJConfig,
    GPTNeoConfig,
    GraniteConfig,
    LlamaConfig,
    Ministral3Config,
    OlmoConfig,
    PhimoeConfig,
    PretrainedConfig,
    PreTrainedModel,
    RobertaConfig,
)

from lorascope.data.dataset import Example
from lorascope.engine.evaluate import example_nats
from lorascope.engine.forward import FrozenModel
from lorascope.engine.verify import check_model, prepare_model
from lorascope.errors import InputError
from lorascope.modeling.adapters.lora import MultiLoraLinear
from lorascope.modeling.adapters.peft_io import merge_peft, save_peft
from lorascope.modeling.backends.protocol import LayerAdapter
from lorascope.modeling.packing.packed_layout import BASE_ONLY
from support.groups import make_spec
from support.tiny_models import VOCABULARY, make_model

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 512, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LONGROPE: dict[str, Any] = {
    "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 3, "long_factor": [1.0, 4.0, 9.0],
    "original_max_position_embeddings": 60,
}  # fmt: skip


def make(config: PretrainedConfig, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(copy.deepcopy(config)).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.3)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.requires_grad_(requires_grad=False).eval()


def rows(*lengths: int) -> tuple[Example, ...]:
    rng = np.random.default_rng(2)
    return tuple(Example(input_ids=rng.integers(3, VOCABULARY, n), target_mask=np.arange(n) % 3 > 0) for n in lengths)


ROWS = rows(5, 12, 31, 200, 40)


def plain_nats(model: PreTrainedModel, examples: tuple[Example, ...]) -> list[float]:
    found = []
    with torch.no_grad():
        for row in examples:
            ids, at = torch.from_numpy(row.input_ids), torch.from_numpy(row.target_mask).nonzero()[:, 0]
            logits = model(ids[None]).logits[0].double()
            found.append(F.cross_entropy(logits[at - 1], ids[at], reduction="sum").item())
    return found


def prepared(model: PreTrainedModel, targets: Any = "all-linear", **asked: Any) -> FrozenModel:
    return prepare_model(model, targets, ROWS, **({"packing": True, "kernels": True} | asked))[0]


def base_nats(frozen: FrozenModel) -> tuple[float, ...]:
    return example_nats(frozen, BASE_ONLY, ROWS, make_spec(tokens_per_pass=512), check_stop=lambda: None)[0]


CONFIGS = {
    "cap on logits": Gemma2Config(**SIZES, head_dim=6, final_logit_softcapping=30.0, attn_logit_softcapping=None),
    "cap on scores": Gemma2Config(**SIZES, head_dim=6, final_logit_softcapping=None, attn_logit_softcapping=1.5),
    "scale of logits": CohereConfig(**SIZES, logit_scale=0.97),
    "divided logits": GraniteConfig(**SIZES, logits_scaling=1.04),
    "scale of embeddings": GraniteConfig(**SIZES, embedding_multiplier=1.02, residual_multiplier=1.01),
    "bias of the head": GPTJConfig(
        vocab_size=VOCABULARY, n_embd=24, n_layer=2, n_head=4, rotary_dim=4, n_positions=512
    ),
    "rotary angles by the longest position": LlamaConfig(**SIZES, rope_parameters=LONGROPE),
    "scale of queries by position": Ministral3Config(
        **SIZES, head_dim=6, rope_parameters={
            "rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 16,
            "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1,
        },
    ),
    "window in the mask": PhimoeConfig(**SIZES, sliding_window=30, num_local_experts=2),
    "window in a mask of its own": DogeConfig(**SIZES, keep_window_size=30),
    "values narrower than queries": DeepseekV3Config(
        **SIZES, moe_intermediate_size=16, n_routed_experts=4, n_group=1, topk_group=1, num_experts_per_tok=2,
        kv_lora_rank=8, q_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=6, v_head_dim=5, first_k_dense_replace=1,
    ),
    "buffers as long as the positions": GPTNeoConfig(
        vocab_size=VOCABULARY, hidden_size=24, num_layers=2, num_heads=4, max_position_embeddings=200, window_size=8,
        attention_types=[[["global", "local"], 1]],
    ),
    "changes in place": OlmoConfig(**SIZES, clip_qkv=0.5),
    "products by another forward": FalconConfig(vocab_size=VOCABULARY, hidden_size=24, num_hidden_layers=2,
                                                num_attention_heads=4),
}  # fmt: skip


@pytest.mark.parametrize("kernels", [False, True])
@pytest.mark.parametrize("kind", CONFIGS)
def test_base_loss_is_that_of_transformers_for_each_row(kind: str, kernels: bool) -> None:
    model = make(CONFIGS[kind])
    expected = plain_nats(model, ROWS)
    assert base_nats(prepared(model, kernels=kernels)) == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("kind", ["cap on logits", "scale of logits", "divided logits"])
def test_bfloat16_head_leaves_nothing_out(kind: str) -> None:
    model = make(CONFIGS[kind], torch.bfloat16)
    expected = plain_nats(model, ROWS)
    frozen = prepared(model)
    assert not frozen.chunked_head
    assert sum(base_nats(frozen)) == pytest.approx(sum(expected), rel=5e-3)


@pytest.mark.parametrize("kind", ["cap on scores", "window in the mask", "scale of queries by position"])
def test_bfloat16_attention_leaves_nothing_out(kind: str) -> None:
    """Its rounding would hide the difference, so the model's code and masks are read."""
    frozen = prepared(make(CONFIGS[kind], torch.bfloat16))
    own = kind == "scale of queries by position"
    assert frozen.packing == own
    assert not any("_Attention" in repr(vars(module).get("forward")) for module in frozen.model.modules())


def test_row_does_not_depend_on_longer_rows_beside_it() -> None:
    frozen = prepared(make(CONFIGS["rotary angles by the longest position"]))
    assert frozen.packing
    assert frozen.switch == 60


def test_study_says_that_rows_go_alone() -> None:
    """The padding of Gemma 2's float64 attention gives NaN."""
    model = make_model("gemma2", torch.float64)
    expected = plain_nats(model, ROWS)
    checked = check_model(make_spec(target_modules="all-linear"), model, ROWS, None)
    assert checked.frozen.alone
    assert "note.rows_alone" in [note.code for note in checked.slower]
    assert base_nats(checked.frozen) == pytest.approx(expected, rel=1e-9)


def test_masked_language_model_is_refused() -> None:
    with pytest.raises(InputError, match="RobertaForCausalLM is not causal here"):
        prepared(make(RobertaConfig(**SIZES)))


def test_weights_that_are_no_numbers_are_called_so() -> None:
    model = make(LlamaConfig(**SIZES))
    model.model.layers[0].mlp.up_proj.weight[0, 0] = torch.nan
    with pytest.raises(InputError, match="own logits are not finite"):
        prepared(model)


def test_layers_that_no_token_passes_get_no_adapter() -> None:
    model = make(LlamaConfig(**SIZES))
    model.model.spare = nn.ModuleDict({"q_proj": nn.Linear(24, 24)})
    assert not any("spare" in name for name in prepared(model, ("q_proj",)).layers)


def test_layers_that_see_some_tokens_are_refused_by_name_and_left_out_of_all_linear() -> None:
    class Last(nn.Module):
        def __init__(self, own: nn.Module) -> None:
            super().__init__()
            self.own, self.extra = own, nn.Linear(24, 24).requires_grad_(requires_grad=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.own(x) + 0 * self.extra(x[:, -1:])

    def model() -> PreTrainedModel:
        made = make(LlamaConfig(**SIZES))
        made.model.layers[1].mlp = Last(made.model.layers[1].mlp)
        return made

    assert "model.layers.1.mlp.extra" not in prepared(model()).layers
    with pytest.raises(InputError, match="extra, which does not see each token"):
        prepared(model(), ("extra",))


def test_adapted_layer_looks_like_the_linear_layer_it_wraps() -> None:
    layer = next(iter(prepared(make(LlamaConfig(**SIZES))).layers.values()))
    assert (layer.weight, layer.bias) == (layer.base.weight, None)
    assert (layer.in_features, layer.out_features) == layer.features
    with pytest.raises(AttributeError, match="no attribute 'width'"):
        _ = layer.width


GLM = Glm4MoeConfig(  # type: ignore[call-arg]  # more than the class declares
    **SIZES | {"num_hidden_layers": 3}, moe_intermediate_size=16, n_routed_experts=4, n_group=1, topk_group=1,
    num_experts_per_tok=2, n_shared_experts=1, first_k_dense_replace=1, head_dim=6,
)  # fmt: skip


def test_layers_that_peft_does_not_load_are_left_out_of_all_linear_and_refused_by_name() -> None:
    """PEFT rewrites names of mixture-of-experts models, and drops what it then does not find."""
    pytest.importorskip("peft")
    spec = make_spec(target_modules="all-linear")
    checked = check_model(spec, make(GLM), ROWS, None)
    assert {name.rpartition(".")[2] for name in checked.frozen.layers} == {"q_proj", "k_proj", "v_proj", "o_proj"}
    codes = [note.code for note in checked.notes]
    assert codes == ["targets.unloadable", "targets.experts"]
    with pytest.raises(InputError, match="PEFT does not load adapters of this layer"):
        check_model(make_spec(target_modules=("q_proj", "down_proj")), make(GLM), ROWS, None)


def test_adapter_of_a_weight_that_layers_share_is_not_merged(tmp_path: Path) -> None:
    model = make(LlamaConfig(**SIZES))
    first, second = (layer.mlp for layer in model.model.layers)
    second.up_proj.weight = first.up_proj.weight
    layers = {f"model.layers.{i}.mlp.up_proj": MultiLoraLinear(part.up_proj) for i, part in enumerate((first, second))}
    adapters = {name: LayerAdapter(A=torch.ones(2, 24), B=torch.ones(40, 2), scale=1.0, dropout=0.0) for name in layers}
    save_peft(tmp_path, adapters, layers, base="", rank=2, lora_alpha=2, rslora=False, dropout=0.0)
    before = first.up_proj.weight.clone()
    with pytest.raises(InputError, match="whose weight is also that of"):
        merge_peft(model, tmp_path)
    assert torch.equal(first.up_proj.weight, before)
