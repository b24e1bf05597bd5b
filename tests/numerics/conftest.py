"""The compiled kernels, where a compiler is here."""

import platform

import pytest
import torch

from lorascope.modeling.backends.cpu import build
from lorascope.modeling.backends.cpu.bindings import Kernels
from lorascope.text.say import say


@pytest.fixture(scope="session")
def own_kernels() -> Kernels:
    """The kernels as a run has them."""
    library, how = build.load_kernels()
    if library is None:
        pytest.skip(say(how))
    return Kernels(library)


@pytest.fixture(scope="session")
def plain_kernels() -> Kernels:
    """The kernels without the instructions that only some processors have."""
    if platform.machine() != "x86_64":
        pytest.skip("which instructions are common is known here for x86-64 only")
    return _built(*("-march=x86-64" if flag == "-march=native" else flag for flag in build._FLAGS))


@pytest.fixture(scope="session")
def vector_kernels() -> Kernels:
    """The kernels without the tile unit."""
    if platform.machine() != "x86_64":
        pytest.skip("there is no tile unit")
    return _built(*build._FLAGS, "-mno-amx-tile", "-mno-amx-bf16")


def _built(*flags: str) -> Kernels:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_FLAGS", flags)
        library, how = build.load_kernels.__wrapped__()
    if library is None:
        pytest.skip(say(how))
    return Kernels(library)


@pytest.fixture(scope="session", params=["own", "vector"])
def product_kernels(request: pytest.FixtureRequest) -> Kernels:
    """Kernels that multiply bfloat16, on the tile unit and without it."""
    kernels: Kernels = request.getfixturevalue(f"{request.param}_kernels")
    if not kernels.supports_matmul(torch.zeros(1, 1, dtype=torch.bfloat16)):
        pytest.skip("this processor has no products of bfloat16")
    return kernels


@pytest.fixture(scope="session", params=["own", "plain"])
def kernels(request: pytest.FixtureRequest) -> Kernels:
    return request.getfixturevalue(f"{request.param}_kernels")
