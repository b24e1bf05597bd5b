"""Python blocks of the documentation run on a real study of a tiny model."""

import contextlib
import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from lorascope.cli import main
from lorascope.run.export import export_adapter
from support.pages import Block, blocks


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the study studies/demo, whose ranks 8 and 16 were really trained, and rank 8 merged in merged/."""
    folder = tmp_path_factory.mktemp("docs")
    make_model(folder / "model")
    rows = [{"prompt": f"What is {n} + {n}?\n", "completion": f"It is {n + n}."} for n in range(24)]
    (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    given = {
        "--model": folder / "model", "--dataset": folder / "rows.json", "--ranks": "8,16", "--max-steps": "2",
        "--cost": "quick", "--dtype": "float32", "--forgetting-text": "none", "--samples": 1,
        "--out": folder / "studies" / "demo",
    }  # fmt: skip
    with pytest.raises(SystemExit) as ended, contextlib.redirect_stdout(io.StringIO()) as out:
        main(["run", *(str(word) for pair in given.items() for word in pair)])
    assert ended.value.code == 0, out.getvalue()
    export_adapter(folder / "studies" / "demo", 8, folder / "merged", merge=True)
    return folder


def make_model(folder: Path) -> None:
    """A model of random weights and a tokenizer that reads bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_only = Tokenizer(models.BPE(vocab={sign: n for n, sign in enumerate([*alphabet, "</s>"])}, merges=[]))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=bytes_only, eos_token="</s>").save_pretrained(folder)
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(alphabet) + 1, hidden_size=24, intermediate_size=32, num_hidden_layers=2, eos_token_id=None,
        num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=1024, bos_token_id=None,
    )  # fmt: skip
    logging.disable_progress_bar()
    LlamaForCausalLM(config).save_pretrained(folder)


@pytest.mark.filterwarnings("ignore")  # what PEFT and Transformers say of their own future is not ours to mend
@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_blocks_run_and_print(
    block: Block, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "work"
    shutil.copytree(place, work)
    monkeypatch.chdir(work)
    exec(compile(block.text, str(block), "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.strip()
