"""The compiled kernels at each level of instructions, native where the processor has them and emulated where not."""

import ctypes
import hashlib
import platform
import sys
from collections.abc import Callable
from functools import cache
from getpass import getuser
from pathlib import Path
from tempfile import gettempdir
from typing import Literal

import pytest
from filelock import FileLock

from lorascope.message import Message
from lorascope.modeling.backends.cpu import build
from lorascope.modeling.backends.cpu.bindings import Kernels
from lorascope.text.say import say

Level = Literal["own", "plain", "avx2", "avx512", "vectors", "tiles"]
"""As a run compiles them; with the instructions that every processor has; as under a ceiling of AVX2 and of AVX-512;
with vector products of bfloat16, which later AVX-512 has; with the tile unit, AMX."""

_EMULATION = Path(__file__).with_name("emulation")
_VECTORS = ("__AVX512F__", "__AVX512BW__", "__AVX512VL__", "__AVX512BF16__")
_TILES = "__AMX_BF16__"
_CEILINGS = {"avx2": "AVX2", "avx512": "AVX512_CORE"}


@cache
def load_level(level: Level) -> tuple[ctypes.CDLL | None, Message]:
    """Return the library of a level and how it was built, or None and the reason."""
    load: Callable[[], tuple[ctypes.CDLL | None, Message]] = build.load_kernels.__wrapped__
    # one process compiles, and the others find what it made
    lock = FileLock(Path(gettempdir()) / f"lorascope-tests-{getuser()}.lock")
    with lock, pytest.MonkeyPatch.context() as patch:
        flags = _flags(level)
        patch.setattr(build, "compiler_flags", lambda: flags)
        patch.setattr(build, "_SECONDS", 600)
        return load()


def kernels_of(level: Level) -> Kernels:
    """Return the kernels of a level; skip the test where there is no compiler."""
    if level in {"plain", *_CEILINGS} and platform.machine() != "x86_64":
        pytest.skip("the tests know the common instructions of x86-64 only")
    library, how = load_level(level)
    if library is None:
        absent = sys.platform != "linux" or build.find_compiler() is None
        (pytest.skip if absent else pytest.fail)(say(how))
    return Kernels(library)


def is_emulated(level: Level) -> bool:
    """Say whether this processor lacks instructions of a level."""
    native = build.supports_bfloat16_matmul()
    return (level == "vectors" and not native) or (level == "tiles" and not (native and "amx_bf16" in _processor()))


def _flags(level: Level) -> tuple[str, ...]:
    native = build.compiler_flags()
    if is_emulated(level):
        common = "-march=x86-64-v3" if {"avx2", "fma", "bmi2", "movbe"} <= _processor() else "-march=x86-64"
        header = hashlib.sha256((_EMULATION / "immintrin.h").read_bytes()).hexdigest()[:16]
        defined = [*_VECTORS, _TILES] if level == "tiles" else _VECTORS
        return (
            *(common if flag == "-march=native" else flag for flag in native),
            *(f"-D{name}" for name in defined),
            f"-I{_EMULATION}",
            f"-DEMULATION_{header}",
        )
    if level in _CEILINGS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ONEDNN_MAX_CPU_ISA", _CEILINGS[level])
            return build.compiler_flags()
    if level == "plain":
        return tuple("-march=x86-64" if flag == "-march=native" else flag for flag in native)
    return (*native, "-mno-amx-tile", "-mno-amx-bf16") if level == "vectors" else native


def _processor() -> set[str]:
    return set(build._processor().split())
