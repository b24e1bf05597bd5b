"""Texts of each rank: token for token those of PEFT, alone or beside others, greedy or drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch

from lorascope.engine.forward import FrozenModel
from lorascope.engine.generate import generate
from lorascope.engine.verify import prepare_model
from lorascope.errors import Interrupted
from lorascope.modeling.adapters.adapter import Adapter, AdapterShape
from lorascope.modeling.adapters.peft_io import save_peft
from lorascope.modeling.packing.packed_layout import BASE_ONLY
from support.tiny_models import TARGETS, VOCABULARY, make_examples, make_model

pytestmark = pytest.mark.filterwarnings("ignore:fan_in_fan_out", "ignore:`is_gradient_checkpointing`")
KINDS = ("llama", "opt", "gpt2", "mistral", "gemma2", "bloom", "mixtral")
RANKS = (2, 5, 9)
ROWS = (BASE_ONLY, 0, 1, 2)
PROMPTS = [example.input_ids for example in make_examples(4, seed=9)]
NO_END = (VOCABULARY - 1,)


def frozen_with_adapters(kind: str, *, kernels: bool = True, packing: bool = True) -> tuple[FrozenModel, list[Adapter]]:
    """A tiny model with adapters that change what it writes."""
    model = make_model(kind, torch.float32)
    frozen, _ = prepare_model(model, TARGETS[kind], make_examples(4), packing=packing, kernels=kernels)
    adapters = []
    for rank in RANKS:
        shape = AdapterShape(rank=rank, scale=2.0, dropout=0.5, seed=rank)
        adapter = Adapter(frozen.layers, shape, compute_dtype=torch.float32)
        with torch.no_grad():
            adapter.flat.normal_(0, 0.2, generator=torch.Generator().manual_seed(rank))
        adapters.append(adapter)
    frozen.attach(adapters)
    return frozen, adapters


def texts(frozen: FrozenModel, rows: Sequence[int] = ROWS, **changes: Any) -> list[list[list[int]]]:
    options: dict[str, Any] = {"max_new_tokens": 12, "end_ids": NO_END} | changes
    return [generate(frozen, prompt, rows, **options) for prompt in PROMPTS]


def texts_of_peft(kind: str, folder: Path | None, penalty: float = 1.0) -> list[list[int]]:
    model: Any = make_model(kind, torch.float32)
    model.generation_config.repetition_penalty = penalty
    if folder is not None:
        model = peft.PeftModel.from_pretrained(model, str(folder))
    found = []
    for prompt in PROMPTS:
        ids = torch.from_numpy(prompt)[None]
        whole = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False,
            eos_token_id=NO_END[0], pad_token_id=NO_END[0],
        )  # fmt: skip
        found.append(whole[0, len(prompt) :].tolist())
    return found


@pytest.mark.parametrize("kernels", [True, False], ids=["kernels", "torch"])
@pytest.mark.parametrize("kind", KINDS)
def test_greedy_texts_equal_those_of_peft(kind: str, kernels: bool, tmp_path: Path) -> None:
    frozen, adapters = frozen_with_adapters(kind, kernels=kernels)
    found = texts(frozen)
    for row, adapter in enumerate((None, *adapters)):
        folder = None if adapter is None else tmp_path / str(row)
        if adapter is not None and folder is not None:
            rank = adapter.shape.rank
            save_peft(
                folder, adapter.layers, frozen.layers, base="", rank=rank, lora_alpha=2 * rank, rslora=False,
                dropout=0.5,
            )  # fmt: skip
        assert [answers[row] for answers in found] == texts_of_peft(kind, folder)
    assert len({str(answers) for answers in zip(*found, strict=True)}) == len(ROWS)


def test_a_penalty_in_the_models_own_settings_holds_and_what_it_returns_does_not() -> None:
    frozen, _ = frozen_with_adapters("llama")
    before = texts(frozen)
    own = frozen.model.generation_config
    own.repetition_penalty, own.return_dict_in_generate, own.num_return_sequences = 1.5, True, 2
    own.do_sample, own.temperature, own.use_cache = True, 2.0, False
    found = texts(frozen)
    assert [answers[0] for answers in found] == texts_of_peft("llama", None, penalty=1.5)
    assert found != before


@pytest.mark.parametrize("temperature", [0.0, 1.3])
@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_a_row_beside_others_is_the_row_alone(kind: str, temperature: float) -> None:
    frozen, _ = frozen_with_adapters(kind)
    together = texts(frozen, temperature=temperature, seed=5)
    for place, row in enumerate(ROWS):
        alone = texts(frozen, (row,), temperature=temperature, seed=5)
        assert [answers[place] for answers in together] == [answers[0] for answers in alone]
    assert together == texts(frozen, temperature=temperature, seed=5)


def test_rows_of_a_model_that_takes_them_alone_go_alone() -> None:
    frozen, _ = frozen_with_adapters("llama")
    expected = texts(frozen)
    object.__setattr__(frozen, "alone", True)
    assert texts(frozen) == expected


def test_draws_follow_the_probabilities_of_the_model() -> None:
    """The first token over many seeds, against softmax(logits / temperature)."""
    frozen, _ = frozen_with_adapters("llama")
    prompt, temperature, n_draws = PROMPTS[0], 0.7, 500
    model = make_model("llama", torch.float32)
    with torch.no_grad():
        expected = (model(torch.from_numpy(prompt)[None]).logits[0, -1] / temperature).softmax(-1).numpy()
    options: dict[str, Any] = {"max_new_tokens": 1, "end_ids": NO_END, "temperature": temperature}
    drawn = [generate(frozen, prompt, (BASE_ONLY,), seed=seed, **options)[0][0] for seed in range(n_draws)]
    shares = np.bincount(drawn, minlength=VOCABULARY) / n_draws
    deviation = np.sqrt(expected * (1 - expected) / n_draws)
    assert np.all(np.abs(shares - expected) <= 5 * deviation + 1 / n_draws)


def test_an_end_token_ends_a_row_and_no_other() -> None:
    frozen, _ = frozen_with_adapters("llama")
    whole = texts(frozen)
    end = whole[0][0][3]
    for answers, full in zip(texts(frozen, end_ids=(end, *NO_END)), whole, strict=True):
        for answer, tokens in zip(answers, full, strict=True):
            assert answer == tokens[: tokens.index(end) + 1 if end in tokens else None]


def test_generation_stops_where_the_run_is_asked_to_stop_and_leaves_the_model_as_it_was() -> None:
    frozen, _ = frozen_with_adapters("llama")
    expected = texts(frozen)

    def stop() -> None:
        raise Interrupted("stopped as asked")

    with pytest.raises(Interrupted):
        texts(frozen, check_stop=stop)
    assert texts(frozen) == expected
