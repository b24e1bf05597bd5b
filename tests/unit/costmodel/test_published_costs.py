"""The cost model against published figures, with configurations written from the models' shapes.

Every figure follows from the principles in docs/numbers.md and the training configuration of the measured program.
"""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, OPTConfig, PretrainedConfig

from lorascope.costmodel.cost_types import CostPrediction, MicroBatch, ModelShape, Step, TrainingConfig
from lorascope.costmodel.devices import DEVICES, Roofline
from lorascope.costmodel.model import predict
from lorascope.costmodel.shapes import model_shape
from lorascope.modeling.targets import find_targets

GIB = 2**30
LLAMA_3B = LlamaConfig(
    vocab_size=128256, hidden_size=3072, intermediate_size=8192, num_hidden_layers=28, num_attention_heads=24,
    num_key_value_heads=8, head_dim=128, tie_word_embeddings=True,
)  # fmt: skip
LLAMA_2_7B = LlamaConfig(
    vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32
)
OPT_350M = OPTConfig(
    vocab_size=50272, hidden_size=1024, word_embed_proj_dim=512, ffn_dim=4096, num_hidden_layers=24,
    num_attention_heads=16, do_layer_norm_before=False, max_position_embeddings=2048,
)  # fmt: skip

# AdamW as Torch computes it without fusing: nine operations over whole lists, each reads and writes all of them
# (decay 8, first average 12, second 8 and 12, root 8, division 8, epsilon 8, step 16), then the norm and clipping.
UNFUSED_UPDATE_BYTES = 80 + 12
PEFT = TrainingConfig(
    dtype="bfloat16", low_rank_dtype="float32", update_bytes=UNFUSED_UPDATE_BYTES, gradient_at_peak=False, chunk=None
)
TRAINER_FLOAT32 = replace(PEFT, dtype="float32")
TORCHTUNE = TrainingConfig(
    dtype="bfloat16", low_rank_dtype="bfloat16", weight_bytes=2, gradient_bytes=2, optimizer_bytes=4, chunk=None
)


def shape_of(config: PretrainedConfig, targets: tuple[str, ...] | str) -> ModelShape:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return model_shape(model, find_targets(model, targets))


def rows(n_rows: int, length: int) -> list[Step]:
    """One micro-batch of rows of one length, all tokens targets."""
    tokens = n_rows * length
    return [
        Step(
            microbatches=(MicroBatch(slots=(tokens,), targets=tokens, squared_lengths=tokens * length),), tokens=tokens
        )
    ]


def costs(
    shape: ModelShape, config: TrainingConfig, steps: list[Step], ranks: tuple[int, ...], on: str
) -> list[CostPrediction]:
    return [predict(shape, config, steps, [rank], Roofline(DEVICES[on])) for rank in ranks]


def state_bytes(found: CostPrediction) -> int:
    memory = found.memory
    return memory.adapter_bytes + memory.optimizer_bytes + found.trained_parameters * 4


def test_peft_llama_3b_rank_32_to_64() -> None:
    # PEFT's MetaMathQA comparison on an L40S: 4 rows of 210 tokens, AdamW, float32 adapters over a bfloat16 base
    shape = shape_of(LLAMA_3B, ("q_proj", "v_proj"))
    assert shape.parameters + 9_175_040 == 3_221_924_864  # as PEFT counts them
    low, high = costs(shape, PEFT, rows(4, 210), (32, 64), "l40s")
    assert (low.trained_parameters, high.trained_parameters) == (9_175_040, 18_350_080)
    # allocated memory was read after steps: activations are gone, gradients are there
    assert (state_bytes(high) - state_bytes(low)) / GIB == pytest.approx(0.137, rel=0.02)
    assert high.step_seconds / low.step_seconds - 1 == pytest.approx(0.017, abs=0.01)


def test_torchtune_llama_7b_rank_8_to_64_on_all_linear_layers() -> None:
    shape = shape_of(LLAMA_2_7B, "all-linear")
    low, high = costs(shape, TORCHTUNE, rows(2, 256), (8, 64), "a100-80gb")
    assert (high.memory.total_bytes - low.memory.total_bytes) / 1e9 == pytest.approx(1.17, rel=0.15)


@pytest.mark.parametrize("gpu", ["t4", "l4", "rtx-3090"])
def test_opt_350m_ratios_of_runtime(gpu: str) -> None:
    # 20,000 rows of CodeAlpaca cut at 128 tokens, batches of 8, float32: 2979.7, 3150.7 and 3377.9 seconds and at most
    # 3.1, 3.2 and 3.4 GB allocated. The projections are PEFT's own for OPT; on which GPU was not said.
    shape = shape_of(OPT_350M, ("q_proj", "v_proj"))
    found = costs(shape, TRAINER_FLOAT32, rows(8, 128), (8, 128, 256), gpu)
    low, middle, high = (one.step_seconds for one in found)
    assert middle / low == pytest.approx(3150.7 / 2979.7, abs=0.04)
    assert high / low == pytest.approx(3377.9 / 2979.7, abs=0.04)
    assert [round(one.memory.total_bytes / 1e9, 1) for one in found] == [3.1, 3.2, 3.4]
