"""Answers to held-out prompts: those of PEFT over the saved adapters, made once, within the time there is."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorascope.data.prepare import prepare
from lorascope.engine.generate import generate
from lorascope.errors import Interrupted
from lorascope.records import BASE_MODEL, BudgetRecord, SampleAnswer, SamplePrompt
from lorascope.run import samples
from lorascope.run.context import RunContext
from lorascope.run.time_budget import TimeBudget
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from support.studies import execute, save_model_folder, study_of

pytestmark = pytest.mark.filterwarnings(
    "ignore:fan_in_fan_out", "ignore:`is_gradient_checkpointing`", "ignore:Model has `tie_word_embeddings"
)


def spec_of(model_folders: Mapping[str, str], rows_file: str, kind: str = "llama", **changes: Any) -> StudySpec:
    return study_of(
        model_folders[kind], rows_file,
        **{"truncation": False, "samples": 3, "max_new_tokens": 6, "learning_rates": (0.05,)} | changes,
    )  # fmt: skip


def stored(folder: Path) -> tuple[list[SamplePrompt], dict[tuple[int, str], SampleAnswer]]:
    """Prompts and answers, without what no two runs share: times."""
    with StudyStore.open(folder / "study.db") as store:
        answers = {(one.place, one.trial_id): replace(one, seconds=0.0) for one in store.read(SampleAnswer)}
        return store.read(SamplePrompt), answers


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"target_modules": "all-linear"}),
    "opt": ("opt", {"target_modules": "all-linear"}),
    "gpt2": ("gpt2", {"target_modules": "all-linear"}),
    "whole modules": ("llama", {"modules_to_save": ("embed_tokens", "lm_head")}),
    "values from the base": ("llama", {"init_lora_weights": "pissa"}),
    "experts": ("mixtral", {"target_parameters": ("experts.gate_up_proj", "experts.down_proj"), "lora_dropout": 0.0}),
}


@pytest.mark.parametrize("case", CASES)
def test_answers_are_those_of_peft_over_the_saved_adapters(
    case: str, model_folders: Mapping[str, str], rows_file: str, tmp_path: Path
) -> None:
    kind, changes = CASES[case]
    if kind not in model_folders:
        save_model_folder(tmp_path / kind, kind)
    spec = spec_of({kind: str(tmp_path / kind), **model_folders}, rows_file, kind, **changes)
    execute(spec, tmp_path / "study")
    prompts, answers = stored(tmp_path / "study")
    tokenizer = AutoTokenizer.from_pretrained(spec.model)
    held_out = prepare(spec, tokenizer).eval
    assert set(answers) == {(place, trial) for place in (1, 2, 3) for trial in (BASE_MODEL, "r2", "r4")}
    for trial_id in (BASE_MODEL, "r2", "r4"):
        model: Any = AutoModelForCausalLM.from_pretrained(spec.model, dtype=torch.float32).eval()
        if trial_id:
            model = peft.PeftModel.from_pretrained(model, tmp_path / "study" / "adapters" / trial_id)
        for prompt in prompts:
            row = held_out[prompt.row - 1]
            start = int(row.target_mask.argmax())
            ids = torch.from_numpy(row.input_ids[:start])[None]
            whole = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False,
                eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.eos_token_id,
            )  # fmt: skip
            answer = answers[prompt.place, trial_id]
            assert (prompt.prompt, prompt.prompt_tokens) == (tokenizer.decode(ids[0]), start)
            assert str(tokenizer.decode(whole[0], skip_special_tokens=True)).rstrip() == prompt.prompt + answer.text
            assert answer.tokens == whole.shape[1] - start
            assert answer.ended == (whole[0, -1].item() == tokenizer.eos_token_id)
    assert len({str([answers[place, trial].text for place in (1, 2, 3)]) for trial in (BASE_MODEL, "r2", "r4")}) > 1


def counting(calls: int, error: Exception) -> Callable[..., object]:
    """``generate`` that works so many times and then fails."""
    left = [calls]

    def call(*args: Any, **kwargs: Any) -> object:
        left[0] -= 1
        if left[0] < 0:
            raise error
        return generate(*args, **kwargs)

    return call


def test_what_is_stored_is_not_made_again(model_folders: Mapping[str, str], rows_file: str, tmp_path: Path) -> None:
    spec = spec_of(model_folders, rows_file)
    execute(spec, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "generate", counting(2, Interrupted("stopped as asked")))
        with pytest.raises(Interrupted):
            execute(spec, tmp_path / "study")
    assert len(stored(tmp_path / "study")[1]) == 6
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "generate", counting(1, RuntimeError("one prompt is left")))
        assert execute(spec, tmp_path / "study").steps == []
    assert stored(tmp_path / "study") == stored(tmp_path / "whole")
    assert "nothing was trained" in execute(spec, tmp_path / "study").notes[0]


def test_a_finished_study_answers_more_prompts(
    model_folders: Mapping[str, str], rows_file: str, tmp_path: Path
) -> None:
    spec = spec_of(model_folders, rows_file, samples=1)
    execute(spec, tmp_path / "study")
    prompts, answers = stored(tmp_path / "study")
    more = spec.model_copy(update={"samples": 9})
    assert execute(more, tmp_path / "study").steps == []
    now, all_answers = stored(tmp_path / "study")
    assert len(now) == spec.eval_examples
    assert now[:1] == prompts
    assert answers.items() <= all_answers.items()
    longer = more.model_copy(update={"max_new_tokens": 9})
    execute(longer, tmp_path / "study")
    assert {answer.max_new_tokens for answer in stored(tmp_path / "study")[1].values()} == {9}


def test_a_time_budget_that_ends_leaves_answers_out(
    model_folders: Mapping[str, str], rows_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def allows(self: TimeBudget, seconds: float) -> bool:
        asked.append(seconds)
        return False

    monkeypatch.setattr(TimeBudget, "allows", allows)
    monkeypatch.setattr(RunContext, "allows", lambda self, activity, work: True)
    spec = spec_of(model_folders, rows_file, time_budget="5min", until_decided=False, seeds=(0,), max_steps=2)
    watcher = execute(spec, tmp_path / "study")
    assert {place for place, _ in stored(tmp_path / "study")[1]} == {1}
    assert len(asked) == 1
    assert asked[0] > 0
    assert "left out, as the time budget ends: answers to further held-out prompts" in watcher.notes
    with StudyStore.open(tmp_path / "study" / "study.db") as store:
        assert store.read_one(BudgetRecord).left_out == ("samples",)
    assert "nothing was trained" in execute(spec, tmp_path / "study").notes[0]


def test_a_model_that_cannot_generate_is_no_failure(
    model_folders: Mapping[str, str], rows_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "generate", counting(0, ValueError("this class has no language modeling head")))
    spec = spec_of(model_folders, rows_file)
    watcher = execute(spec, tmp_path / "study")
    assert watcher.notes.count("the model wrote no answers (this class has no language modeling head)") == 1
    assert {answer.error.values["text"] for answer in stored(tmp_path / "study")[1].values() if answer.error} == {
        "this class has no language modeling head"
    }
    assert "nothing was trained" in execute(spec, tmp_path / "study").notes[0]
