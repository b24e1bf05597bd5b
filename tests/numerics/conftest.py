"""The compiled kernels, where a compiler is here."""

import platform

import pytest

from lorascope.modeling.kernels import build
from lorascope.modeling.kernels.calls import Kernels


@pytest.fixture(scope="session")
def own_kernels() -> Kernels:
    """The kernels as a run has them."""
    library, how = build.load_kernels()
    if library is None:
        pytest.skip(how)
    return Kernels(library)


@pytest.fixture(scope="session")
def plain_kernels() -> Kernels:
    """The kernels without the instructions that only some processors have."""
    if platform.machine() != "x86_64":
        pytest.skip("which instructions are common is known here for x86-64 only")
    flags = tuple("-march=x86-64" if flag == "-march=native" else flag for flag in build._FLAGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_FLAGS", flags)
        library, how = build.load_kernels.__wrapped__()
    if library is None:
        pytest.skip(how)
    return Kernels(library)


@pytest.fixture(scope="session", params=["own", "plain"])
def kernels(request: pytest.FixtureRequest) -> Kernels:
    return request.getfixturevalue(f"{request.param}_kernels")
