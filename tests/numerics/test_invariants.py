"""Invariants of a trial group, numbered as in the list of the design."""

import gc
from dataclasses import replace

import numpy as np
import pytest
import torch

from lorascope.data.dataset import Examples, Splits
from lorascope.engine.forward import MicroBatchRow
from lorascope.engine.instrumentation import Phase
from lorascope.engine.trial import TrainingTrial
from lorascope.engine.verify import prepare_model
from lorascope.modeling.adapters.adapter import attach
from lorascope.modeling.load import hash_weights
from lorascope.modeling.packing.packed_layout import BASE_ONLY
from lorascope.search.halving import Rungs
from lorascope.search.steps import rung_steps
from lorascope.search.trials import plan_trials
from support.groups import make_spec, prepared, run_group
from support.tiny_models import TARGETS, make_examples, make_model, make_splits


@pytest.fixture(params=[True, False])
def compiled(request: pytest.FixtureRequest) -> bool:
    """Whether the compiled kernels are used."""
    if request.param:
        request.getfixturevalue("own_kernels")
    return request.param


def test_joint_losses_equal_solo_losses(kind: str) -> None:
    """1. With dropout, clipping, warm-up and micro-batches that split the batch differently."""
    spec = make_spec()
    joint = run_group(spec, kind)
    for record in plan_trials(spec):
        solo = run_group(spec, kind, records=[record])
        np.testing.assert_allclose(joint.losses(record.trial_id), solo.losses(record.trial_id), rtol=1e-10)
        np.testing.assert_allclose(joint.eval_nats(record.trial_id), solo.eval_nats(record.trial_id), rtol=1e-10)
        norms = [[r.grad_norm for r in k.step_records if r.trial_id == record.trial_id] for k in (joint, solo)]
        np.testing.assert_allclose(norms[0], norms[1], rtol=1e-9)


def test_losses_are_independent_of_microbatch_size() -> None:
    """1. The dropout of a row does not depend on its micro-batch."""
    wide, narrow = (run_group(make_spec(tokens_per_pass=n, ranks=(2, 8), max_steps=3)) for n in (10_000, 1))
    for trial in ("r2", "r8"):
        np.testing.assert_allclose(wide.losses(trial), narrow.losses(trial), rtol=1e-10)


class _Graphs:
    """A Probe that counts tensors of a graph whenever a micro-batch begins."""

    def __init__(self) -> None:
        self.alive: list[int] = []

    def step_begins(self) -> None: ...

    def phase_begins(self, phase: Phase) -> None:
        if phase == "forward":
            tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
            self.alive.append(sum(tensor.grad_fn is not None for tensor in tensors))

    def step_ends(self, *, tokens: int) -> float:
        return float(tokens)


def test_microbatches_leave_no_state(compiled: bool) -> None:
    """What is left of its graph would lie between the tensors of the next, and memory would be full of holes."""
    graphs = _Graphs()
    run_group(make_spec(max_steps=2, tokens_per_pass=1), frozen=prepared("llama", kernels=compiled), probe=graphs)
    assert graphs.alive == [graphs.alive[0]] * (2 * 3 * 4)


def test_trials_of_other_seeds_and_rates_are_independent() -> None:
    """2. Every trial of a grid equals itself trained alone."""
    spec = make_spec(ranks=(2, 4), seeds=(0, 1), learning_rates=(1e-3, 5e-2), max_steps=4)
    joint = run_group(spec)
    for record in plan_trials(spec):
        solo = run_group(spec, records=[record])
        np.testing.assert_allclose(joint.losses(record.trial_id), solo.losses(record.trial_id), rtol=1e-10)


@pytest.mark.parametrize("position", [0, 1])
def test_diverged_trial_leaves_the_others_unchanged(position: int) -> None:
    """2. At any position in the group; its curve is kept up to the step that failed."""
    spec = make_spec(max_steps=4, tokens_per_pass=1024)
    ruined, *others = [("r2", "r4", "r8"), ("r4", "r2", "r8")][position]

    def poison(trials: list[TrainingTrial]) -> None:
        weights = trials[position].adapter
        with torch.no_grad():
            weights.flat[3] = float("inf")

    joint = run_group(spec, prepare_trials=poison)
    assert joint.outcomes[ruined].state == "diverged"
    assert joint.outcomes[ruined].steps == 0
    assert len(joint.losses(ruined)) == 1
    for name in others:
        assert joint.outcomes[name].state == "finished"
        record = next(record for record in plan_trials(spec) if record.trial_id == name)
        np.testing.assert_allclose(joint.losses(name), run_group(spec, records=[record]).losses(name), rtol=1e-10)


def test_rates_stopped_at_a_rung_leave_the_others_unchanged() -> None:
    """2. Their own curves end there, with the evaluation that decided."""
    spec = make_spec(ranks=(2, 4), learning_rates=(1e-6, 1e-5, 1e-2, 2e-2), max_steps=6, eval_steps=6)
    kept = run_group(spec, rungs=Rungs(steps=rung_steps(spec, 6)))
    states = {name: (outcome.state, outcome.steps) for name, outcome in kept.outcomes.items()}
    for rank in (2, 4):
        of_rank = {state for name, state in states.items() if name.startswith(f"r{rank}-")}
        assert {("stopped", 3), ("stopped", 4), ("finished", 6)} >= of_rank > {("finished", 6)}
    for record in plan_trials(spec):
        name, solo = record.trial_id, run_group(spec, records=[record])
        steps = states[name][1]
        assert len(kept.losses(name)) == steps
        assert [r.step for r in kept.evaluations if r.trial_id == name] == [0, 3, 4, 6][: {3: 2, 4: 3, 6: 4}[steps]]
        np.testing.assert_allclose(kept.losses(name), solo.losses(name)[:steps], rtol=1e-10)
        if steps == 6:
            np.testing.assert_allclose(kept.eval_nats(name)[-1], solo.eval_nats(name)[-1], rtol=1e-10)


def test_initial_logits_are_those_of_the_base(kind: str) -> None:
    """3. Bit for bit, in the precision people run."""
    for dtype in (torch.float32, torch.bfloat16):
        frozen, spec = prepared(kind, dtype=dtype), make_spec()
        rows = make_examples(3)
        base = frozen.logits([MicroBatchRow(example=row, adapter=BASE_ONLY) for row in rows])
        trials = [TrainingTrial(record, spec, frozen.layers, dtype) for record in plan_trials(spec)]
        attach(frozen.layers, [trial.adapter for trial in trials])
        for index in range(len(trials)):
            adapted = frozen.logits([MicroBatchRow(example=row, adapter=index) for row in rows])
            for ours, theirs in zip(adapted, base, strict=True):
                assert torch.equal(ours, theirs)


def test_base_weights_are_unchanged_by_training(kind: str) -> None:
    """3. And it does change the adapters."""
    before = hash_weights(make_model(kind))
    frozen = prepared(kind)
    kept = run_group(make_spec(), frozen=frozen)
    assert hash_weights(frozen.model) == before
    assert all(layer.B.abs().max() > 0 for layer in kept.trials["r8"].adapter.layers.values())


def test_gradient_accumulation_equals_one_large_batch() -> None:
    """5. Two batches of four rows with unequal lengths and one of eight."""
    spec = {"ranks": (2, 8), "max_steps": 4}
    together = run_group(make_spec(per_device_train_batch_size=8, **spec))
    accumulated = run_group(make_spec(per_device_train_batch_size=4, gradient_accumulation_steps=2, **spec))
    for trial in ("r2", "r8"):
        np.testing.assert_allclose(together.losses(trial), accumulated.losses(trial), rtol=1e-12)


def test_recorded_loss_is_a_sum_over_targets() -> None:
    """5. The first step's nats are those of the base on the same rows."""
    frozen = prepared("llama")
    kept = run_group(make_spec(), frozen=frozen)
    first = kept.step_records[0]
    plain = make_model("llama")
    splits = make_splits()
    from lorascope.data.row_order import step_rows

    nats = targets = tokens = 0.0
    for row in step_rows(make_spec(), len(splits.train), seed=0, step=0):
        example = splits.train[row]
        ids = torch.from_numpy(example.input_ids)
        log_p = plain(ids[None]).logits[0].log_softmax(-1)
        at = torch.from_numpy(example.target_mask).nonzero()[:, 0]
        nats -= log_p[at - 1, ids[at]].sum().item()
        targets += len(at)
        tokens += len(ids)
    assert first.nats == pytest.approx(nats, rel=1e-12)
    assert (first.target_tokens, first.tokens) == (targets, tokens)


@pytest.mark.parametrize("kind", ["llama", "opt", "gpt2", "mistral"])
def test_packed_logits_equal_unpacked(kind: str, compiled: bool) -> None:
    """6. Also under a sliding window, and with a row long enough to be attended to alone."""
    frozen = prepared(kind, kernels=compiled)
    assert frozen.packing
    assert frozen.accelerated == compiled
    rows = (*make_examples(6), *make_examples(1, seed=8, shortest=600, longest=600))
    plain = make_model(kind)
    packed = frozen.logits([MicroBatchRow(example=row, adapter=BASE_ONLY) for row in rows])
    padded = replace(frozen, packing=False).logits([MicroBatchRow(example=row, adapter=BASE_ONLY) for row in rows])
    for ours, theirs, row in zip(packed, padded, rows, strict=True):
        expected = plain(torch.from_numpy(row.input_ids)[None]).logits[0]
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(theirs, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["gemma2", "bloom"])
def test_model_that_cannot_be_packed_is_padded_with_a_reason(kind: str) -> None:
    """6. Its rows go the way that gives its own logits."""
    model = make_model(kind, torch.float32)
    frozen, reasons = prepare_model(model, TARGETS[kind], make_splits().train, packing=True, kernels=True)
    assert not frozen.packing
    assert reasons.packing.code == "packing.refused"
    assert frozen.chunked_head == (kind != "gemma2")
    rows, plain = make_examples(4), make_model(kind, torch.float32)
    for ours, row in zip(
        frozen.logits([MicroBatchRow(example=row, adapter=BASE_ONLY) for row in rows]), rows, strict=True
    ):
        expected = plain(torch.from_numpy(row.input_ids)[None]).logits[0]
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_padded_model_with_its_own_head_trains_jointly_as_alone() -> None:
    """1. In float32, as Transformers' eager attention has no float64."""
    spec = make_spec(ranks=(2, 4), max_steps=3)
    joint, alone = (
        run_group(spec, "gemma2", frozen=prepared("gemma2", dtype=torch.float32), records=records)
        for records in (plan_trials(spec), plan_trials(spec)[1:])
    )
    np.testing.assert_allclose(joint.losses("r4"), alone.losses("r4"), rtol=1e-5)


def test_rows_go_alone_where_padding_makes_logits_that_are_no_numbers() -> None:
    """6. The padding of Gemma 2's float64 attention gives NaN, which must not count as equality."""
    frozen, _ = prepare_model(make_model("gemma2"), None, make_splits().train, packing=True, kernels=True)
    assert frozen.alone
    assert not frozen.packing


def test_packed_training_equals_padded(kind: str, compiled: bool) -> None:
    """6. Dropout included: padding draws nothing, and the kernels draw the bits that NumPy draws."""
    packed = run_group(make_spec(), frozen=prepared(kind, kernels=compiled))
    padded = run_group(make_spec(), frozen=prepared(kind, packing=False, kernels=False))
    for trial in ("r2", "r8"):
        np.testing.assert_allclose(packed.losses(trial), padded.losses(trial), rtol=1e-10)


def test_packed_training_of_long_rows_equals_padded(compiled: bool) -> None:
    """6. The gradient through attention of rows that go alone."""
    rows = make_examples(4, seed=9, shortest=500, longest=560)
    splits = Splits(train=Examples.of(rows), eval=rows[:1], data_hash="", format="text", notes=())
    spec = make_spec(max_steps=2, tokens_per_pass=1024)
    packed, padded = (
        run_group(spec, frozen=prepared("mistral", packing=p, kernels=compiled and p), splits=splits)
        for p in (True, False)
    )
    np.testing.assert_allclose(packed.losses("r8"), padded.losses("r8"), rtol=1e-10)


def test_base_evaluation_equals_every_trial_at_step_0() -> None:
    """The one evaluation that all trials share at step 0 is what each would have had."""
    spec = make_spec()
    frozen = prepared("llama")
    kept = run_group(spec, frozen=frozen)
    fresh = [TrainingTrial(replace(r), spec, frozen.layers, torch.float64) for r in plan_trials(spec)]
    attach(frozen.layers, [trial.adapter for trial in fresh])
    for index, trial in enumerate(fresh):
        rows = [MicroBatchRow(example=row, adapter=index) for row in make_splits().eval]
        with torch.no_grad():
            nats = [row.sum().item() for row in frozen.row_nats(rows)]
        np.testing.assert_allclose(kept.eval_nats(trial.record.trial_id)[0], nats, rtol=1e-12)


@pytest.mark.parametrize("packing", [True, False])
def test_correct_tokens_are_those_of_the_largest_logits(kind: str, packing: bool, compiled: bool) -> None:
    """At the first and the last step, from the pass that gives the loss; micro-batches of any size."""
    spec = make_spec(max_steps=3, eval_steps=1)
    frozen = prepared(kind, packing=packing, kernels=compiled)
    kept = run_group(spec, frozen=frozen)
    records = {one.step: one for one in kept.evaluations if one.trial_id == "r4"}
    assert [step for step, one in sorted(records.items()) if one.example_correct_tokens is not None] == [0, 3]
    held_out = make_splits().eval
    for step, adapter in ((0, BASE_ONLY), (3, 0)):
        frozen.attach([kept.trials["r4"].adapter] if step else [])
        logits = frozen.logits([MicroBatchRow(example=row, adapter=adapter) for row in held_out])
        for row, found, count in zip(held_out, logits, records[step].example_correct_tokens, strict=True):
            at = torch.from_numpy(row.target_mask).nonzero().squeeze(1)
            targets = torch.from_numpy(row.input_ids)[at]
            assert count == int((found[at - 1].argmax(1) == targets).sum())
