"""Compile the kernels for this machine, once, and load them.

They are built on first use rather than when the package is installed, so that they use this processor's instructions,
and so that a machine without a compiler can install the package.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import torch

from lorascope.atomic import new_file
from lorascope.message import Message
from lorascope.paths import cache_folder

_SOURCE = Path(__file__).with_name("kernels.cpp")
_FLAGS = (
    "-std=c++17",
    "-O3",
    # compilers for other processors do not know this one
    *(("-mprefer-vector-width=512",) if platform.machine() == "x86_64" else ()),
    "-fopenmp",
    # sqrt and comparisons vectorise only without errno and traps
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fPIC",
    "-shared",
    # the system's OpenMP library is not linked if Torch's own suffices
    "-Wl,--as-needed",
)
_SECONDS = 120
"""Time limit of the compiler, which needs about 9 seconds."""
_CEILINGS = {
    "AVX2": (("-march=x86-64-v3",), {"avx2", "fma", "bmi2", "f16c"}),
    "AVX512_CORE": (("-march=x86-64-v4",), {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
    "AVX512_CORE_BF16": (("-march=x86-64-v4", "-mavx512bf16"), {"avx512bw", "avx512vl", "avx512_bf16"}),
}
"""Compiler flags of a level of instructions, by its name in oneDNN, and the processor flags that it needs."""


@cache
def load_kernels() -> tuple[ctypes.CDLL | None, Message]:
    """Return the kernels and how they were built, or None and the reason."""
    if sys.platform != "linux":
        return None, Message("kernels.linux_only")
    compiler = find_compiler()
    if compiler is None:
        return None, Message("kernels.no_compiler")
    name = Path(compiler).name
    try:
        return ctypes.CDLL(str(_built(compiler))), Message("kernels.compiled", compiler=name)
    except subprocess.CalledProcessError as error:
        why = _complaint(error.stderr) or f"exit code {error.returncode}"
        return None, Message("kernels.not_compiled", compiler=name, error=why)
    except subprocess.TimeoutExpired:
        return None, Message("kernels.timeout", compiler=name, seconds=_SECONDS)
    except OSError as error:
        return None, Message("kernels.not_loaded", error=str(error))


def find_compiler() -> str | None:
    """Return the path of the C++ compiler; None without one."""
    named = os.environ.get("CXX")
    return next((path for name in ([named] if named else ["g++", "c++"]) if (path := shutil.which(name))), None)


def ceiling() -> str:
    """Return the level that ``ONEDNN_MAX_CPU_ISA`` limits this processor to; "" where it limits nothing.

    oneDNN multiplies for Torch, so that a limit set for it is one for the kernels, too.
    """
    level = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    return level if level in _CEILINGS and _CEILINGS[level][1] <= set(_processor().split()) else ""


def compiler_flags() -> tuple[str, ...]:
    """Return the flags for this processor, or for the level that it is limited to."""
    level = ceiling()
    return (*_FLAGS, *(_CEILINGS[level][0] if level else ("-march=native",)))


def supports_bfloat16_matmul() -> bool:
    """Return True if the kernels may use instructions that multiply bfloat16."""
    has_them = {"avx512_bf16", "avx512bw", "avx512vl"} <= set(_processor().split())
    return has_them and ceiling() not in {"AVX2", "AVX512_CORE"}


def _built(compiler: str) -> Path:
    """Return the library for this source, compiler, processor and OpenMP library; build it if it is not there yet."""
    openmp = sorted(Path(torch.__file__).parent.glob("lib/libgomp*.so*"))
    sources = [path.read_bytes() for path in (_SOURCE, *sorted(_SOURCE.parent.glob("*.hpp")))]
    flags = compiler_flags()
    parts = (sources, _run([compiler, "--version"]), flags, _processor(), [path.name for path in openmp])
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    library = _own_folder() / f"{digest}.so"
    if not library.exists():
        with new_file(library, derived=True) as made:
            # Torch's own OpenMP library, so that Torch and the kernels share one set of threads
            _run([compiler, *flags, str(_SOURCE), *map(str, openmp), "-o", str(made)])
            made.chmod(0o755)
    return library


def _run(command: list[str]) -> str:
    return subprocess.run(  # noqa: S603 - the compiler is the user's, and the rest is ours
        command, capture_output=True, encoding="utf-8", errors="replace", check=True, timeout=_SECONDS
    ).stdout


def _own_folder() -> Path:
    """Return the folder of libraries, made if necessary; they run as this user, so no other user may write there.

    Raises:
        PermissionError: another user may put a library there.
    """
    folder = cache_folder().resolve() / "kernels"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    shared = status.st_uid not in {0, os.getuid()} or status.st_mode & 0o022
    # a user who may write to a folder above may replace this one, unless the sticky bit is set
    if shared or any(above.stat().st_mode & 0o1002 == 0o002 for above in folder.parents):
        raise PermissionError(f"others may write to {folder}; set LORASCOPE_CACHE to a folder of your own")
    return folder


def _processor() -> str:
    """Return what ``-march=native`` depends on; machines may share a cache folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def _complaint(text: str) -> str:
    """Return the first line with the word error, or the first line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line.lower()), lines[0] if lines else "")[:200]
