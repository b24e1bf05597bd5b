"""The cost model against hand-computed figures and against what the engine allocates and saves."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from lorascope.costmodel import cpu_bench
from lorascope.costmodel.cost_types import LinearShape, Matmul, MicroBatch, ModelShape, Step, TrainingConfig
from lorascope.costmodel.devices import BANDWIDTH_SHARE, DEVICES, MATMUL_SHARE, Roofline, find_device, recognise
from lorascope.costmodel.model import predict, saved_bytes
from lorascope.costmodel.shapes import model_shape
from lorascope.costmodel.training_config import full_finetuning_config, lorascope_config
from lorascope.data.dataset import Example
from lorascope.engine.forward import FrozenModel, MicroBatchRow
from lorascope.engine.trial import TrainingTrial
from lorascope.engine.verify import prepare_model
from lorascope.modeling.adapters.adapter import attach
from lorascope.modeling.adapters.modules_to_save import select_modules_to_save
from lorascope.modeling.targets import find_targets
from lorascope.search.trials import plan_trials
from lorascope.spec.schema import StudySpec
from lorascope.text.say import say
from support.tiny_models import TARGETS, make_examples, make_model

SHAPE = ModelShape(
    parameters=1000,
    linears=(
        LinearShape(n_in=10, n_out=20, adapted=True, count=2),
        LinearShape(n_in=20, n_out=10, adapted=False, count=2),
    ),
    width=10, vocabulary=30, blocks=2, norms=2, norm_features=20, wide_norms=True, query_features=20,
    key_value_features=40, heads=4, hidden_features=40, gated=False, kept_by_activation=1, inputs=60, adapted_inputs=20,
)  # fmt: skip
CONFIG = TrainingConfig(dtype="bfloat16", low_rank_dtype="bfloat16", fused=True)
STEP = Step(microbatches=(MicroBatch(slots=(100,), targets=50, squared_lengths=1000),), tokens=100)
L4 = Roofline(DEVICES["l4"])


def test_flops_are_four_per_frozen_and_six_per_trained_weight() -> None:
    found = predict(SHAPE, CONFIG, [STEP], [3], L4)
    assert found.trained_parameters == 3 * 2 * (10 + 20)
    frozen, head, attention = 2 * 200 + 2 * 200, 30 * 10, 7 * 1000 * 20
    assert found.step_flops == 100 * (4 * frozen + 6 * found.trained_parameters) + 50 * 4 * head + attention


def test_memory_parts_of_the_cost_model() -> None:
    memory = predict(SHAPE, CONFIG, [STEP], [3], L4, rest_bytes=7).memory
    assert (memory.base_bytes, memory.adapter_bytes, memory.gradient_bytes, memory.optimizer_bytes) == (
        2000,
        180 * 4,
        180 * 4,
        180 * 8,
    )
    # norms, queries with their outputs, keys and values, feed-forward, inputs of adapters; a log sum a head
    kept = 100 * (2 * (20 + 2 * 20 + 40 + 40 + 20) + 4 * 4)
    low_rank, head = 100 * 2 * 3 * 2, 50 * 30 * 2 + 2 * 50 * 10 * 2
    assert memory.activation_bytes == kept + low_rank + max(head, 100 * 3 * 20 * 2)
    assert memory.total_bytes == 2000 + 180 * 16 + memory.activation_bytes + 7


def test_microbatches_cast_adapter_weights() -> None:
    rounding = replace(CONFIG, rounding_bytes=12)
    for microbatches in (1, 2):
        step = Step(microbatches=STEP.microbatches * microbatches, tokens=100 * microbatches)
        with_it, without = (predict(SHAPE, config, [step], [3], L4).step_bytes for config in (rounding, CONFIG))
        assert with_it - without == microbatches * 12 * 180


@pytest.mark.parametrize(("dtype", "copied"), [("bfloat16", 2), ("float32", 0)])
def test_full_fine_tuning_has_a_weight_copy(dtype: str, copied: int) -> None:
    lora = lorascope_config(dtype, kernels=False, on_cpu=False)
    full = full_finetuning_config(lora)
    assert (lora.copy_bytes, full.copy_bytes, full.rounding_bytes) == (0, copied, 0)
    assert full.update_bytes - lora.update_bytes == 3 * copied  # it is made once an update


def test_heap_overhead_scales_activations() -> None:
    found = predict(SHAPE, CONFIG, [STEP], [3], L4).memory
    with_overhead = predict(SHAPE, replace(CONFIG, heap_overhead=0.5), [STEP], [3], L4).memory
    assert with_overhead == replace(found, activation_bytes=round(1.5 * found.activation_bytes))


def test_low_rank_factor_scales_the_products_of_adapters() -> None:
    slower = replace(CONFIG, low_rank_factor=2.0)
    low_rank, twice = (
        predict(SHAPE, config, [STEP], [3], L4).step_seconds - predict(SHAPE, config, [STEP], [], L4).step_seconds
        for config in (CONFIG, slower)
    )
    assert low_rank <= twice <= 2 * low_rank
    assert predict(SHAPE, slower, [STEP], [], L4) == predict(SHAPE, CONFIG, [STEP], [], L4)


def test_cpu_benchmark_refines_by_medians_of_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first figure is one measurement; refined, it is the median of three rounds that repeat all of them."""
    asked: list[str] = []
    took = {"product": iter((1.0, 5.0, 3.0)), "activation": iter((4.0, 2.0, 9.0))}

    def typical(run: Callable[[], object]) -> float:
        run()
        name = "product" if "mm" in run.__code__.co_names else "activation"
        asked.append(name)
        return next(took[name])

    monkeypatch.setattr(cpu_bench, "_median_seconds", typical)
    cpu, product = cpu_bench.CpuBenchmark(), Matmul(64, 32, 16, "nt")
    assert cpu.matmul_seconds(product, "float32") == 1.0
    once = cpu.activation_seconds(8.0)
    assert asked == ["product", "activation"]
    assert cpu.refine()
    assert asked == 3 * ["product", "activation"]
    assert cpu.matmul_seconds(product, "float32") == 3.0
    assert cpu.activation_seconds(8.0) == once


def test_gradients_and_activations_do_not_overlap_without_gradient_at_peak() -> None:
    late = replace(CONFIG, gradient_at_peak=False)
    early, found = predict(SHAPE, CONFIG, [STEP], [3], L4), predict(SHAPE, late, [STEP], [3], L4)
    assert found.memory.total_bytes == early.memory.total_bytes - early.memory.gradient_bytes


def test_group_costs_its_ranks_and_one_base() -> None:
    together = Step(microbatches=(MicroBatch(slots=(100, 100), targets=100, squared_lengths=2000),), tokens=100)
    joint = predict(SHAPE, CONFIG, [together], [3, 5], L4)
    alone = [predict(SHAPE, CONFIG, [STEP], [rank], L4) for rank in (3, 5)]
    assert joint.trained_parameters == sum(one.trained_parameters for one in alone)
    assert joint.step_flops == sum(one.step_flops for one in alone)
    assert joint.memory.base_bytes == alone[0].memory.base_bytes
    assert joint.memory.optimizer_bytes == sum(one.memory.optimizer_bytes for one in alone)


def test_trained_embeddings_and_head_cost_their_weights_states_and_products() -> None:
    plain = predict(SHAPE, CONFIG, [STEP], [3], L4)
    found = predict(replace(SHAPE, trained_embeddings=300, trained_head=330), CONFIG, [STEP], [3], L4)
    assert found.trained_parameters == plain.trained_parameters + 630
    assert found.memory.adapter_bytes == plain.memory.adapter_bytes + 4 * 630
    assert found.memory.optimizer_bytes == plain.memory.optimizer_bytes + 8 * 630
    # the gradient of the head's weight, and its logits once more
    assert found.step_flops == plain.step_flops + 50 * 4 * 30 * 10
    # a gradient before it is accumulated, and logits in two precisions
    assert found.memory.activation_bytes >= plain.memory.activation_bytes + 4 * 330


def test_first_values_are_held_once_for_all_trials_of_a_rank() -> None:
    shape, config = replace(SHAPE, trained_head=330), replace(CONFIG, copy_bytes=4)
    memory = predict(shape, config, [STEP], [3, 3, 5], L4).memory
    assert memory.adapter_bytes == 4 * (60 * (3 + 3 + 5) + 3 * 330) + 4 * 60 * (3 + 5)


def test_full_fine_tuning_has_no_frozen_base() -> None:
    full = replace(CONFIG, copy_bytes=2, trains_base=True)
    found = predict(SHAPE, full, [STEP], [], L4)
    assert found.trained_parameters == SHAPE.parameters
    assert found.memory.base_bytes == 0
    assert found.memory.total_bytes - found.memory.activation_bytes == 1000 * (4 + 2 + 4 + 8)
    assert found.step_flops == 100 * 6 * 800 + 50 * 6 * 300 + 7 * 1000 * 20


def test_low_rank_matmul_is_memory_bound_and_a_wide_one_compute_bound() -> None:
    low, lower = Matmul(1024, 4096, 16, "nt"), Matmul(1024, 4096, 8, "nt")
    assert L4.matmul_seconds(low, "bfloat16") == pytest.approx(low.values * 2 / (BANDWIDTH_SHARE * 300e9))
    assert L4.matmul_seconds(low, "bfloat16") / L4.matmul_seconds(lower, "bfloat16") < 1.02
    wide = Matmul(1024, 4096, 4096, "nt")
    assert L4.matmul_seconds(wide, "bfloat16") == pytest.approx(wide.flops / (MATMUL_SHARE * 121e12))


@pytest.mark.parametrize(
    ("driver", "name"),
    [
        ("Tesla T4", "T4"), ("NVIDIA A10G", "A10G"), ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA A100 80GB PCIe", "A100-80GB"), ("NVIDIA L40S", "L40S"), ("NVIDIA L4", "L4"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090"), ("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA B200", "B200"),
    ],
)  # fmt: skip
def test_device_names_of_drivers_are_recognised(driver: str, name: str) -> None:
    found = recognise(driver)
    assert found is not None
    assert found.name == name
    assert find_device(name.replace("-", " ").lower()) is found


@pytest.mark.parametrize(
    "driver",
    [
        "NVIDIA GeForce GTX 1080", "Quadro P5000", "NVIDIA L40", "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 3090 Ti", "NVIDIA H100 PCIe", "NVIDIA H100 NVL",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb", "GRID T4-4Q", "NVIDIA L4-24Q", "NVIDIA GeForce RTX 4090 D",
    ],
)  # fmt: skip
def test_unknown_device_names_are_not_matched(driver: str) -> None:
    assert recognise(driver) is None


def spec_of(kind: str, rank: int) -> StudySpec:
    return StudySpec(ranks=(rank,), target_modules=TARGETS[kind], tokens_per_pass=4096)


@pytest.mark.parametrize("endings", [None, ("lm_head",), ("lm_head", "embed_tokens", "wte")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_predicted_sizes_equal_those_of_the_trial(
    kind: str, dtype: torch.dtype, endings: tuple[str, ...] | None
) -> None:
    model, spec = make_model(kind, dtype), spec_of(kind, 3)
    names = [name for name, _ in model.named_modules() if name.endswith(endings or ("none",))]
    whole = select_modules_to_save(model, tuple(names) or None)
    (targets,) = spec.target_sets
    planned = model_shape(model, find_targets(model, targets), modules_to_save=whole)
    frozen, _ = prepare_model(model, targets, make_examples(6), packing=True, kernels=False, modules_to_save=whole)
    trial = TrainingTrial(plan_trials(spec)[0], spec, frozen.layers, dtype, frozen.modules_to_save)
    config = lorascope_config(str(dtype).removeprefix("torch."), kernels=False, on_cpu=False)
    shape = model_shape(model, frozen.layers, modules_to_save=whole)
    assert shape == planned
    assert shape.whole_parameters == trial.adapter.saved_parameters
    found = predict(shape, config, [STEP], [3], L4)
    record = trial.adapter_record()
    assert found.trained_parameters == record.trainable_parameters
    assert found.memory.gradient_bytes == record.gradient_bytes
    assert found.memory.optimizer_bytes == record.optimizer_bytes
    assert found.memory.adapter_bytes == record.parameter_bytes
    assert found.memory.base_bytes == sum(p.numel() * p.element_size() for p in model.parameters())


def kept_bytes(frozen: FrozenModel, rows: list[Example]) -> int:
    """Bytes that autograd saves for one micro-batch, each storage once, without weights."""
    weights = {p.untyped_storage().data_ptr() for p in frozen.model.parameters()}
    for layer in frozen.layers.values():
        weights |= {t.untyped_storage().data_ptr() for a in layer.adapters for t in (a.A, a.B)}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # holding it keeps its address from being given again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        nats = frozen.row_nats([MicroBatchRow(example=row, adapter=0) for row in rows])
    assert nats
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("kernels", [True, False], ids=["kernels", "torch"])
def test_predicted_activations_are_those_that_autograd_saves(kind: str, kernels: bool) -> None:
    # what each further token keeps: twice the rows less once the rows leaves out what does not grow
    model, spec = make_model(kind, torch.float32), spec_of(kind, 4)
    rows = make_examples(32, shortest=16, longest=16)
    frozen, reasons = prepare_model(model, spec.target_sets[0], rows, packing=True, kernels=kernels)
    assert frozen.packing
    if kernels and not frozen.accelerated:
        pytest.skip(say(reasons.kernels))
    trial = TrainingTrial(plan_trials(spec)[0], spec, frozen.layers, torch.float32)
    attach(frozen.layers, [trial.adapter])
    measured = kept_bytes(frozen, list(rows)) - kept_bytes(frozen, list(rows[:16]))
    shape, config = model_shape(model, frozen.layers), lorascope_config("float32", kernels=kernels, on_cpu=False)
    one = MicroBatch(slots=(16 * 16,), targets=0, squared_lengths=16**3, kept_scores=0 if kernels else 16**3)
    assert saved_bytes(shape, config, one, [4]) == pytest.approx(measured, rel=0.1)
