"""Modules trained whole beside adapters have the losses that PEFT gives them, and the files that it loads."""

import runpy
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import peft
import pytest
import torch

from lorascope.engine.evaluate import example_nats
from lorascope.engine.verify import prepare_model
from lorascope.errors import InputError
from lorascope.modeling.adapters.modules_to_save import saved_module_notes, select_modules_to_save
from lorascope.modeling.adapters.peft_io import merge_peft, read_updates, save_peft
from lorascope.run.adapters import attach_updates
from lorascope.search.trials import plan_trials
from support.groups import Kept, make_spec, run_group
from support.tiny_models import make_model, make_splits

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "one_rank.py"))
NAMES = {
    "llama": ("embed_tokens", "lm_head"),
    "mistral": ("embed_tokens", "lm_head"),
    "gpt2": ("wte", "lm_head"),
    "opt": ("embed_tokens", "lm_head"),
    "gemma2": ("embed_tokens", "lm_head"),
}
IDS = torch.arange(3, 20)[None]


def frozen_of(kind: str, names: tuple[str, ...], dtype: torch.dtype, *, kernels: bool, packing: bool = True) -> Any:
    model = make_model(kind, dtype)
    whole = select_modules_to_save(model, names)
    assert len(whole) == len(names)
    return prepare_model(
        model, "all-linear", make_splits().train, packing=packing, kernels=kernels, modules_to_save=whole
    )[0]


def by_peft(kind: str, names: tuple[str, ...], dtype: torch.dtype, start: Any, spec: Any) -> tuple[Any, list[float]]:
    """Train PEFT's model from the same A; return it and its losses."""
    config: Any = peft.LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=int(plan_trials(spec)[0].lora_alpha), target_modules="all-linear",
        modules_to_save=list(names),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's about tied weights
        model: Any = peft.get_peft_model(make_model(kind, dtype), config)
    trained: dict[str, Any] = {}
    for name, module in model.named_modules():
        own = name.removeprefix("base_model.model.")
        if isinstance(module, peft.tuners.lora.LoraLayer):
            lora: Any = module
            A, B = lora.lora_A["default"].weight, lora.lora_B["default"].weight
            A.data.copy_(start[own])
            trained[own] = type("Layer", (), {"A": A, "B": B})
    whole = [p for n, p in model.named_parameters() if ".modules_to_save." in n]
    assert len(whole) == len(names)
    trained["whole"] = type("Layer", (), {"A": whole[0], "B": whole[-1]})
    if len(whole) == 1:
        trained["whole"] = type("Layer", (), {"A": whole[0], "B": torch.nn.Parameter(torch.zeros(0))})
    steps = list(EXAMPLE["train"](model, trained, make_splits().train, spec, spec.max_steps))
    return model, [step.loss for step in steps]


def spec_of(**changes: Any) -> Any:
    return make_spec(ranks=(4,), lora_dropout=0.0, warmup_steps=0, target_modules="all-linear", **changes)


DOUBLE, SINGLE = torch.float64, torch.float32
CASES = [
    *[(kind, names, False, dtype) for kind, names in NAMES.items() for dtype in (DOUBLE, SINGLE)],
    ("llama", NAMES["llama"], True, DOUBLE),
    ("llama", NAMES["llama"], True, SINGLE),
    ("llama", ("embed_tokens",), True, DOUBLE),
    ("mistral", ("lm_head",), True, DOUBLE),
    ("gpt2", ("wte",), False, DOUBLE),
]
# Transformers' padded rows are not numbers there
CASES.remove(("gemma2", NAMES["gemma2"], False, DOUBLE))


@pytest.mark.parametrize(("kind", "names", "kernels", "dtype"), CASES)
def test_losses_and_files_are_those_of_peft(
    kind: str, names: tuple[str, ...], kernels: bool, dtype: torch.dtype, tmp_path: Path
) -> None:
    spec, tolerance = spec_of(), 1e-9 if dtype == torch.float64 else 2e-4
    frozen = frozen_of(kind, names, dtype, kernels=kernels)
    start: dict[str, torch.Tensor] = {}
    ours = run_group(
        spec, frozen=frozen,
        prepare_trials=lambda trials: start.update({n: a.A.clone() for n, a in trials[0].adapter.layers.items()}),
    )  # fmt: skip
    model, losses = by_peft(kind, names, dtype, start, spec)
    np.testing.assert_allclose(ours.losses("r4"), losses, rtol=tolerance)
    save(ours, frozen, spec, tmp_path)
    # the analyses after training take the saved modules from the files
    run: Any = SimpleNamespace(
        study=SimpleNamespace(frozen=frozen), folder=SimpleNamespace(trial_adapter=lambda _: tmp_path)
    )
    attach_updates(run, "r4", read_updates(tmp_path))
    nats, _ = example_nats(frozen, 0, make_splits().eval, spec, check_stop=lambda: None)
    np.testing.assert_allclose(nats, ours.eval_nats("r4")[-1], rtol=tolerance)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        loaded = peft.PeftModel.from_pretrained(make_model(kind, dtype), tmp_path).eval()
        expected = model.eval()(IDS).logits
        torch.testing.assert_close(loaded(IDS).logits, expected, rtol=10 * tolerance, atol=10 * tolerance)
        merged = make_model(kind, dtype)
        merge_peft(merged, tmp_path)
        merged.save_pretrained(tmp_path / "merged")
        again = type(merged).from_pretrained(tmp_path / "merged", dtype=dtype)
        torch.testing.assert_close(again(IDS).logits, expected, rtol=10 * tolerance, atol=10 * tolerance)


def save(ours: Kept, frozen: Any, spec: Any, folder: Path) -> None:
    adapter, trial = ours.trials["r4"].adapter, plan_trials(spec)[0]
    save_peft(
        folder, adapter.layers, frozen.layers, base="a", rank=4, lora_alpha=trial.lora_alpha, rslora=False, dropout=0.0,
        modules=adapter.copies,
    )  # fmt: skip
    n_saved = sum(weight.numel() for copy in adapter.copies.values() for weight in copy.values())
    assert adapter.saved_parameters == n_saved > 0


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("kind", NAMES)
def test_ranks_trained_together_have_the_losses_they_have_alone(kind: str, packing: bool) -> None:
    options: dict[str, Any] = {"target_modules": "all-linear", "tokens_per_pass": 200}

    def frozen() -> Any:
        return frozen_of(kind, NAMES[kind], torch.float64, kernels=packing, packing=packing)

    together = run_group(make_spec(ranks=(2, 4), **options), frozen=frozen())
    for rank in (2, 4):
        alone = run_group(make_spec(ranks=(rank,), **options), frozen=frozen())
        np.testing.assert_allclose(together.losses(f"r{rank}"), alone.losses(f"r{rank}"), rtol=1e-10)
        np.testing.assert_allclose(together.eval_nats(f"r{rank}"), alone.eval_nats(f"r{rank}"), rtol=1e-10)
    assert together.losses("r2")[-1] != together.losses("r4")[-1]


def test_other_modules_and_names_that_match_nothing_are_refused() -> None:
    for kind, name, parts in (
        ("llama", "norm", ("model.layers.0", "RMSNorm", "model.embed_tokens, lm_head")),
        ("llama", "embed_token", ("matches no module", "model.embed_tokens, lm_head")),
        ("opt", "embed_positions", ("embed_positions", "only embeddings and output heads")),
    ):
        with pytest.raises(InputError) as caught:
            select_modules_to_save(make_model(kind), ("lm_head", name))
        assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_copies_of_tied_weights_are_noted() -> None:
    codes = {
        kind: [note.code for note in saved_module_notes(model, select_modules_to_save(model, ("lm_head",)))]
        for kind in ("mistral", "gpt2")
        for model in [make_model(kind)]
    }
    assert codes == {"mistral": ["targets.modules_to_save"], "gpt2": ["targets.modules_to_save", "targets.untied"]}
