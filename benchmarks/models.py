"""The models of the benchmarks: ``python models.py NAME`` brings one into the cache and prints where it is."""

import shutil
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, OPTConfig

from lorascope.modeling.load import BUILTIN, load_tokenizer, locate_model, save_model
from lorascope.paths import cache_folder

OPT_350M = OPTConfig(
    vocab_size=50272,
    hidden_size=1024,
    word_embed_proj_dim=512,
    ffn_dim=4096,
    num_hidden_layers=24,
    num_attention_heads=16,
    do_layer_norm_before=False,
    max_position_embeddings=2048,
    dropout=0.1,
    activation_function="relu",
)
"""The configuration of facebook/opt-350m."""


def opt_350m() -> Path:
    """Return the folder of a model of OPT-350m's shape with random weights and the built-in model's tokenizer."""
    target = cache_folder() / "benchmarks" / "opt-350m-random"
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(OPT_350M)  # type: ignore[no-untyped-call]
            save_model(model, load_tokenizer(locate_model(BUILTIN, trust_remote_code=False)), aside)
            aside.rename(target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return target


def main() -> None:
    if sys.argv[1] == "opt-350m":
        print(opt_350m())
    else:
        locate_model(BUILTIN, trust_remote_code=False)
        print(BUILTIN)


if __name__ == "__main__":
    main()
