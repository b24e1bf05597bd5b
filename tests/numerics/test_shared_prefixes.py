"""Prefixes that rows of a batch share, computed once, against rows computed one by one."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.mistral.modeling_mistral import MistralRMSNorm

from lorascope.data.dataset import Example, Examples, Splits
from lorascope.engine.forward import FrozenModel, MicroBatchRow
from lorascope.engine.microbatch import plan_microbatches
from lorascope.engine.trial import TrainingTrial
from lorascope.engine.verify import prepare_model
from lorascope.modeling.adapters.adapter import attach
from lorascope.modeling.packing.packed_layout import MicroBatchLayout
from lorascope.search.trials import plan_trials
from support.groups import Kept, make_spec, prepared, run_group
from support.tiny_models import TARGETS, VOCABULARY, make_model

KINDS = ["llama", "opt", "gpt2", "mistral"]
BUDGETS = [10_000, 90, 1]
NAMES = ("r2", "r4", "r8")


pytestmark = pytest.mark.usefixtures("own_kernels")


@pytest.fixture(autouse=True)
def exact_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute norms in the precision of their input.

    Transformers' own go through float32 whatever it is, and a prefix's gradient, which is a sum over the rows that
    share it, is then rounded otherwise than each row's by itself.
    """

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)

    for norm in (LlamaRMSNorm, MistralRMSNorm):
        monkeypatch.setattr(norm, "forward", forward)


def make_kin(n: int, *, seed: int, inside: bool) -> tuple[Example, ...]:
    """Rows that begin in three ways, one of which is the beginning of another, and end on their own.

    Args:
        n: rows.
        seed: of their tokens; how they begin is always the same.
        inside: whether there are targets among the tokens at the beginning.
    """
    begin = np.random.default_rng(1).integers(0, VOCABULARY, 70)
    begins = (begin[:20], begin[:41], begin[41:])
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        own = rng.integers(0, VOCABULARY, int(rng.integers(1, 30)))
        ids = np.concatenate([begins[i % 3], own])
        mask = rng.random(len(ids)) < 0.7
        mask[: 1 if inside else len(begins[i % 3])] = False
        mask[-1] = True
        rows.append(Example(input_ids=ids, target_mask=mask))
    return tuple(rows)


def make_splits(*, inside: bool) -> Splits:
    train, held_out = (make_kin(n, seed=n, inside=inside) for n in (16, 7))
    return Splits(train=Examples.of(train), eval=held_out, data_hash="", format="text", notes=())


def run(share: str, *, inside: bool = True, **changes: Any) -> Kept:
    fields = {"per_device_train_batch_size": 8, "max_steps": 3, "eval_steps": 3} | changes
    return run_group(make_spec(share_prefixes=share, **fields), splits=make_splits(inside=inside))


def assert_same(found: Kept, expected: Kept, names: Sequence[str] = NAMES) -> None:
    for name in names:
        ours, theirs = ([r for r in kept.step_records if r.trial_id == name] for kept in (found, expected))
        np.testing.assert_allclose(found.losses(name), expected.losses(name), rtol=1e-10)
        np.testing.assert_allclose(found.eval_nats(name), expected.eval_nats(name), rtol=1e-10)
        np.testing.assert_allclose([r.grad_norm for r in ours], [r.grad_norm for r in theirs], rtol=1e-9)
        assert [(r.tokens, r.target_tokens) for r in ours] == [(r.tokens, r.target_tokens) for r in theirs]


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("budget", BUDGETS)
def test_shared_prefixes_change_no_loss_without_dropout(budget: int, inside: bool) -> None:
    """Jointly, with and without split prefix groups; token counts are those of the rows."""
    changes: dict[str, Any] = {"inside": inside, "lora_dropout": 0.0}
    assert_same(run("exact", tokens_per_pass=budget, **changes), run("never", tokens_per_pass=10_000, **changes))


def adapted(kind: str, dropout: float) -> tuple[FrozenModel, list[TrainingTrial]]:
    """Ranks 2 and 8 with a B that is not zero, which would hide A's gradient."""
    frozen, spec = prepared(kind), make_spec(ranks=(2, 8), lora_dropout=dropout)
    trials = [TrainingTrial(record, spec, frozen.layers, frozen.model.dtype) for record in plan_trials(spec)]
    for i, trial in enumerate(trials):
        with torch.no_grad():
            trial.adapter.flat.normal_(std=0.1, generator=torch.Generator().manual_seed(i))
    attach(frozen.layers, [trial.adapter for trial in trials])
    return frozen, trials


def loss_of(frozen: FrozenModel, rows: Sequence[Sequence[MicroBatchRow]], *, share: bool, budget: int) -> float:
    """Add each row's nats, weighted by its length, and their gradient."""
    total = 0.0
    for one in plan_microbatches(rows, tokens_per_pass=budget, padded=False, share=share):
        nats = frozen.row_nats(one)
        loss = torch.stack([n.sum() * row.example.n_tokens for n, row in zip(nats, one, strict=True)]).sum()
        if loss.requires_grad:
            loss.backward()
        total += loss.item()
    return total


def batch_of(n_trials: int, *, dropout: bool = False) -> list[list[MicroBatchRow]]:
    return [
        [
            MicroBatchRow(example=row, adapter=adapter, stream=(5, 6, i) if dropout else None)
            for i, row in enumerate(make_kin(7, seed=2, inside=True))
        ]
        for adapter in range(n_trials)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_shared_prefixes_change_no_gradient(kind: str) -> None:
    """Also under a window shorter than the prefix, and with positions that are learned."""
    frozen, trials = adapted(kind, 0.0)
    found = []
    for share, budget in ((False, 10_000), *((True, budget) for budget in BUDGETS)):
        nats = loss_of(frozen, batch_of(2), share=share, budget=budget)
        found.append((nats, [trial.adapter.flat.grad.clone() for trial in trials]))
        for trial in trials:
            trial.adapter.zero_grad()
    (nats, grads), *shared = found
    for ours, our_grads in shared:
        assert ours == pytest.approx(nats, rel=1e-10)
        for grad, expected in zip(our_grads, grads, strict=True):
            torch.testing.assert_close(grad, expected, rtol=1e-10, atol=1e-10 * expected.abs().max().item())


@pytest.mark.parametrize("kind", KINDS)
def test_shared_prefixes_change_no_logits(kind: str) -> None:
    frozen, _ = adapted(kind, 0.0)
    (one,) = plan_microbatches(batch_of(2), tokens_per_pass=10_000, padded=False, share=True)
    assert any(row.prefix_group is not None for row in one)
    alone = frozen.logits([replace(row, prefix_group=None) for row in one])
    for ours, expected in zip(frozen.logits(one), alone, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


def test_shared_prefixes_with_dropout_ignore_microbatches_and_other_trials() -> None:
    """A prefix has one mask, named by its group, in every micro-batch that computes it."""
    kept = run("always", tokens_per_pass=10_000)
    for budget in BUDGETS[1:]:
        assert_same(run("always", tokens_per_pass=budget), kept)
    assert_same(run("always", ranks=(4,), tokens_per_pass=90), kept, names=("r4",))


def test_shared_prefixes_exact_and_always_with_dropout() -> None:
    exact, never, always = (run(share, ranks=(4,), max_steps=1, eval_steps=1) for share in ("exact", "never", "always"))
    assert exact.losses("r4") == never.losses("r4")
    assert exact.step_records[0].grad_norm == never.step_records[0].grad_norm
    assert always.step_records[0].grad_norm != pytest.approx(never.step_records[0].grad_norm, rel=1e-3)


def test_shared_prefixes_gradcheck_with_dropout() -> None:
    """Along one random direction of all weights of an adapter, the mask fixed by its streams."""
    frozen, trials = adapted("llama", 0.5)
    flat = trials[1].adapter.flat
    step = 1e-6 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(4), dtype=flat.dtype)

    def loss() -> float:
        return loss_of(frozen, batch_of(2, dropout=True), share=True, budget=90)

    loss()
    slope = (flat.grad @ step).item()
    values = []
    for sign in (1, -2):
        with torch.no_grad():
            flat.add_(step, alpha=sign)
        values.append(loss())
    assert (values[0] - values[1]) / 2 == pytest.approx(slope, rel=1e-7)


def test_shared_prefixes_are_verified_when_a_run_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What follows a prefix is put in a wrong place, and the kernels are not used."""
    rows = make_kin(8, seed=1, inside=True)
    frozen, reasons = prepare_model(make_model("gpt2"), TARGETS["gpt2"], rows, packing=True, kernels=True)
    assert frozen.can_share, reasons.kernels
    misplaced = property(lambda self: self.lay_out([torch.arange(length) for length in self.lengths]))
    monkeypatch.setattr(MicroBatchLayout, "positions", misplaced)
    frozen, reasons = prepare_model(make_model("gpt2"), TARGETS["gpt2"], rows, packing=True, kernels=True)
    assert frozen.packing
    assert not frozen.can_share
    assert reasons.kernels.code == "kernels.differ"
