"""Compiled kernels, where a compiler is installed."""

import pytest

from lorascope.modeling.backends.cpu import backend
from lorascope.modeling.backends.cpu.bindings import Kernels
from support.kernels import is_emulated, kernels_of, load_level


@pytest.fixture(scope="session")
def own_kernels() -> Kernels:
    """The kernels as a run has them."""
    return kernels_of("own")


@pytest.fixture(scope="session")
def plain_kernels() -> Kernels:
    """The kernels without the instructions that only some processors have."""
    return kernels_of("plain")


@pytest.fixture(scope="session", params=["tiles", "vectors"])
def product_kernels(request: pytest.FixtureRequest) -> Kernels:
    """Kernels that multiply bfloat16, on the tile unit and without it."""
    return kernels_of(request.param)


@pytest.fixture(
    scope="session", params=["own", "plain", "avx2", "avx512", *(["tiles"] if is_emulated("tiles") else [])]
)
def kernels(request: pytest.FixtureRequest) -> Kernels:
    return kernels_of(request.param)


@pytest.fixture
def model_kernels(product_kernels: Kernels, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kernels:
    """Kernels that multiply bfloat16, for whole models, too."""
    level = request.node.callspec.params["product_kernels"]
    monkeypatch.setattr(backend, "load_kernels", lambda: load_level(level))
    return product_kernels
