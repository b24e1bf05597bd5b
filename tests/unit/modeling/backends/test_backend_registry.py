"""Backends: a new one takes a folder of its own and one line in the registry."""

import pytest
import torch

from lorascope.engine.verify import prepare_model
from lorascope.modeling.backends import registry
from lorascope.modeling.backends.registry import LOADERS, load_fast_backend
from lorascope.modeling.backends.torch.backend import TORCH
from support.counting_backend import CountingBackend, load_counting_backend
from support.groups import make_spec, prepared, run_group
from support.kernels import kernels_of
from support.tiny_models import make_model, make_splits


def test_a_registered_backend_computes_every_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "LOADERS", [load_counting_backend, *LOADERS])
    frozen, reasons = prepare_model(
        make_model("llama", torch.float64), None, make_splits().train, packing=True, kernels=True
    )
    assert isinstance(frozen.backend, CountingBackend)
    assert frozen.accelerated
    assert reasons.kernels.values["modules"] == 1
    ours, plain = run_group(make_spec(), frozen=frozen), run_group(make_spec(), frozen=prepared("llama", kernels=False))
    for trial in ("r2", "r4", "r8"):
        assert ours.losses(trial) == plain.losses(trial)
        assert torch.equal(ours.trials[trial].adapter.flat, plain.trials[trial].adapter.flat)
    assert set(frozen.backend.calls) == {"multi_lora", "attend", "dropout_rows", "head_loss", "norm"}


def test_the_first_backend_that_loads_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels_of("own")
    backend, reason = load_fast_backend(torch.device("cpu"))
    assert backend is not None
    assert (backend.name, reason.code) == ("cpu", "kernels.compiled")
    backend, reason = load_fast_backend(torch.device("meta"))
    assert (backend, reason.code) == (None, "kernels.cpu_only")
    assert backend is not TORCH
    monkeypatch.setattr(registry, "LOADERS", [*LOADERS, load_counting_backend])
    assert isinstance(load_fast_backend(torch.device("meta"))[0], CountingBackend)
