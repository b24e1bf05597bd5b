"""A backend is used where it is right and not clearly slower than Torch; what was measured is kept."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lorascope.engine import backend_speed
from lorascope.engine.backend_speed import Speed, compare_speed, measure_speed
from lorascope.engine.forward import FrozenModel
from lorascope.engine.verify import Reasons, prepare_model
from lorascope.message import Message
from support.kernels import kernels_of
from support.tiny_models import make_examples, make_model

ROWS = make_examples(9)
SLOWER = Speed(seconds=1.2, torch_seconds=1.0, tokens=64)
AS_FAST = Speed(seconds=1.05, torch_seconds=1.0, tokens=64)
FASTER = Speed(seconds=0.5, torch_seconds=1.0, tokens=64)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own, beside that of the compiled kernels, and no model that is too small."""
    kernels_of("own")
    monkeypatch.setattr(backend_speed, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(backend_speed, "_SMALL", 0)
    return tmp_path


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Speed]:
    """Results that measurements return, the last first; empty when all were asked for."""
    results: list[Speed] = []
    monkeypatch.setattr(backend_speed, "measure_speed", lambda *_, **__: results.pop())
    return results


def prepared(**changes: Any) -> tuple[FrozenModel, Reasons]:
    asked = {"packing": True, "kernels": True, "timed": True} | changes
    return prepare_model(make_model("llama", torch.float32), None, ROWS, **asked)


def patched(frozen: FrozenModel) -> list[nn.Module]:
    return [module for module in frozen.model.modules() if "forward" in vars(module)]


@pytest.mark.parametrize("packing", [True, False])
def test_a_slower_backend_is_not_used(measured: list[Speed], packing: bool) -> None:
    measured.append(SLOWER)
    frozen, reasons = prepared(packing=packing)
    assert not frozen.accelerated
    assert not patched(frozen)
    assert frozen.packing == packing
    assert reasons.kernels == Message("kernels.slower", share=1.2)
    assert not measured


@pytest.mark.parametrize("speed", [AS_FAST, FASTER])
def test_a_backend_that_is_as_fast_is_used(measured: list[Speed], speed: Speed) -> None:
    measured.append(speed)
    frozen, reasons = prepared()
    assert frozen.accelerated
    assert patched(frozen)
    assert reasons.kernels.code == "kernels.faster"
    assert reasons.kernels.values["share"] == speed.ratio
    right = reasons.kernels.values["right"]
    assert isinstance(right, Message)
    assert right.code == "kernels.agree"


def test_a_decision_stays_as_it_was_first_made(measured: list[Speed]) -> None:
    measured += [FASTER, SLOWER]
    assert [prepared()[0].accelerated for _ in range(3)] == [False] * 3
    assert measured == [FASTER]


def test_another_precision_number_of_threads_or_way_to_share_is_measured_anew(
    measured: list[Speed], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured += [FASTER] * 4
    prepared()
    prepared(share=True)
    prepare_model(make_model("llama", torch.float64), None, ROWS, packing=True, kernels=True, timed=True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    prepared()
    prepared()
    assert not measured


def test_of_two_processes_that_measure_at_once_the_first_decides(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(fast: FrozenModel, modules: Sequence[nn.Module], *_: object, **__: object) -> Speed:
        monkeypatch.setattr(backend_speed, "measure_speed", lambda *_, **__: SLOWER)
        assert compare_speed(fast, modules, ROWS, share=False) == SLOWER  # another process is done
        return FASTER

    monkeypatch.setattr(backend_speed, "measure_speed", measure)
    assert not prepared()[0].accelerated
    assert len(list((own_cache / "speed").iterdir())) == 1


def test_a_result_that_cannot_be_kept_decides_nothing(own_cache: Path, measured: list[Speed]) -> None:
    """Else two runs could decide differently."""
    (own_cache / "speed").write_text("a file where the folder should be", encoding="utf-8")
    measured.append(SLOWER)
    frozen, reasons = prepared()
    assert frozen.accelerated
    assert reasons.kernels.code == "kernels.agree"


def test_a_damaged_result_is_measured_anew(own_cache: Path, measured: list[Speed]) -> None:
    measured += [SLOWER, SLOWER]
    prepared()
    (file,) = (own_cache / "speed").iterdir()
    file.write_text("{", encoding="utf-8")
    assert not prepared()[0].accelerated
    assert not measured


def test_small_models_and_studies_that_go_on_are_not_timed(
    measured: list[Speed], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prepared(timed=False)[0].accelerated
    monkeypatch.setattr(backend_speed, "_SMALL", 5_000_000)
    assert prepared()[0].accelerated


@pytest.mark.parametrize("error", [MemoryError("no memory"), RuntimeError("no such operation")])
def test_where_torch_cannot_compute_so_the_backend_stays(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def measure(*_: object, **__: object) -> Speed:
        raise error

    monkeypatch.setattr(backend_speed, "measure_speed", measure)
    frozen, reasons = prepared()
    assert frozen.accelerated
    assert reasons.kernels.code == "kernels.agree"


@pytest.mark.parametrize("share", [False, True])
def test_measuring_leaves_the_model_as_it_was(share: bool) -> None:
    frozen, _ = prepared(timed=False)
    forwards = {module: module.forward for module in patched(frozen)}
    speed = measure_speed(frozen, list(forwards), ROWS[:3] * 2, share=share)
    assert min(speed.seconds, speed.torch_seconds) > 0
    assert speed.tokens >= 32
    assert {module: module.forward for module in patched(frozen)} == forwards
    assert not any(layer.adapters for layer in frozen.layers.values())


def test_modules_are_patched_again_if_measuring_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen, _ = prepared(timed=False)
    modules = patched(frozen)

    def seconds(way: FrozenModel, *_: object) -> float:
        if not way.accelerated:
            raise MemoryError
        return 1.0

    monkeypatch.setattr(backend_speed, "_seconds", seconds)
    assert compare_speed(frozen, modules, ROWS, share=False) is None
    assert patched(frozen) == modules
    assert not any(layer.adapters for layer in frozen.layers.values())


@pytest.mark.parametrize(
    ("backend", "plain", "expected"),
    [
        ([0.2, 0.2], [1.0, 1.0], (0.2, 1.0)),  # clear at once
        ([2.0, 0.5], [1.0, 1.0], (0.5, 1.0)),  # a busy moment
        ([2.0, 2.0], [1.0, 1.0], (2.0, 1.0)),
        ([1.0, 1.0, 1.0, 0.9, 1.0], [1.0, 1.1, 1.0, 1.0, 1.0], (0.9, 1.0)),
    ],
)
def test_both_are_timed_in_turns_until_it_is_clear(
    monkeypatch: pytest.MonkeyPatch, backend: list[float], plain: list[float], expected: tuple[float, float]
) -> None:
    frozen, _ = prepared(timed=False)
    times = {True: iter(backend), False: iter(plain)}
    monkeypatch.setattr(backend_speed, "_seconds", lambda way, _: next(times[way.accelerated]))
    speed = measure_speed(frozen, patched(frozen), ROWS, share=False)
    assert (speed.seconds, speed.torch_seconds) == expected
