"""Tiny models, tokenizers and rows, shaped like real ones."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    OPTConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from lorascope.data.dataset import Example, Examples, Splits

VOCABULARY = 61

WriteRows = Callable[[Sequence[Mapping[str, object]]], str]
"""Write rows to a file and return its path."""

CONFIGS = {
    "llama": LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, max_position_embeddings=700, tie_word_embeddings=True,
    ),
    # facebook/opt-350m's quirks: embeddings narrower than the layers, norms after the blocks, learned positions
    "opt": OPTConfig(
        vocab_size=VOCABULARY, hidden_size=24, word_embed_proj_dim=16, ffn_dim=40, num_hidden_layers=2,
        num_attention_heads=4, do_layer_norm_before=False, max_position_embeddings=700, dropout=0.1,
    ),
    "gpt2": GPT2Config(vocab_size=VOCABULARY, n_embd=24, n_layer=2, n_head=4, n_positions=700),
    "mistral": MistralConfig(
        vocab_size=VOCABULARY, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=700, sliding_window=5,
    ),
    # caps on scores and logits, which neither packed attention nor the chunked head know of
    "gemma2": Gemma2Config(
        vocab_size=VOCABULARY, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=6, query_pre_attn_scalar=6, sliding_window=5, max_position_embeddings=700,
        attn_logit_softcapping=0.5, final_logit_softcapping=2.0,
    ),
    # biases instead of positions, computed from the attention mask
    "bloom": BloomConfig(vocab_size=VOCABULARY, hidden_size=24, n_layer=2, n_head=4),
    # experts in parameters [experts, out, in]
    "mixtral": MixtralConfig(
        vocab_size=VOCABULARY, hidden_size=24, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=700, num_local_experts=4, num_experts_per_tok=2,
    ),
    # experts in parameters [experts, in, out], with biases
    "gpt_oss": GptOssConfig(
        vocab_size=VOCABULARY, hidden_size=24, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=6, max_position_embeddings=700, num_local_experts=4, num_experts_per_tok=2,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
    ),
}  # fmt: skip
TARGETS = {
    "llama": None, "opt": None, "gpt2": ("c_attn",), "mistral": None, "gemma2": None, "bloom": None, "mixtral": None,
    "gpt_oss": None,
}  # fmt: skip


def make_model(
    kind: str, dtype: torch.dtype = torch.float64, *, vocabulary: int = VOCABULARY, **changes: Any
) -> PreTrainedModel:
    """A model with random weights, large enough for logits that differ from token to token."""
    torch.manual_seed(11)
    config = copy.deepcopy(CONFIGS[kind])
    config.update({"vocab_size": vocabulary, **changes})
    model = AutoModelForCausalLM.from_config(config).to(dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.2)
    if kind in {"mixtral", "gpt_oss"} and dtype is torch.float64:
        model.set_experts_implementation("eager")  # the grouped product of Torch has no float64
    return model.requires_grad_(requires_grad=False).eval()


def make_examples(n: int, *, seed: int = 3, shortest: int = 4, longest: int = 19) -> tuple[Example, ...]:
    """Rows of random tokens and lengths; about two thirds of the tokens are targets."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        length = int(rng.integers(shortest, longest + 1))
        mask = rng.random(length) < 0.7
        mask[0], mask[-1] = False, True
        rows.append(Example(input_ids=rng.integers(0, VOCABULARY, length), target_mask=mask))
    return tuple(rows)


def make_splits(n_train: int = 24, n_eval: int = 5) -> Splits:
    train, held_out = Examples.of(make_examples(n_train)), make_examples(n_eval, seed=4)
    return Splits(train=train, eval=held_out, data_hash="", format="text", notes=())


STRINGS = [
    "### Question: What is the sum of two numbers?\n ### Answer: The sum of 1 and 2 is 3.",
    "def add(a, b):\n    return a + b\n\n    # the sum of two numbers\n",
    "Below is an instruction that describes a task. Write a response that completes the request.",
] * 3
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def train_tokenizer(*, bos: bool) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        STRINGS,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
        ),
    )
    if bos:
        bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    else:
        bpe.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
