"""Compile the kernels for this machine, once, and load them.

They are built when first needed rather than when the package is installed, so that they use what this processor has,
and so that a machine without a compiler can install the package.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from lorascope.modeling.base import cache_folder

_SOURCE = Path(__file__).with_name("kernels.cpp")
_FLAGS = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-mprefer-vector-width=512",
    "-fopenmp",
    # sqrt and comparisons vectorise only where nobody asks for their errno or traps
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fPIC",
    "-shared",
    # the system's OpenMP library is left out where Torch's own has all that is needed
    "-Wl,--as-needed",
)
_SECONDS = 120
"""A compiler that takes longer than this hangs; it needs about 6."""


@cache
def load_kernels() -> tuple[ctypes.CDLL | None, str]:
    """Return the kernels and how they came about, or None and why there are none."""
    compiler = _compiler()
    if compiler is None:
        return None, "no C++ compiler is here"
    try:
        return ctypes.CDLL(str(_built(compiler))), f"compiled with {Path(compiler).name}"
    except subprocess.CalledProcessError as error:
        return None, f"{Path(compiler).name} could not compile them: {_first_line(error.stderr)}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"{Path(compiler).name} could not compile them: {_first_line(str(error))}"


def _compiler() -> str | None:
    named = os.environ.get("CXX")
    return next((path for name in ([named] if named else ["g++", "c++"]) if (path := shutil.which(name))), None)


def _built(compiler: str) -> Path:
    """Return the library for this source, compiler, processor and OpenMP library; build it if it is not there yet."""
    openmp = sorted(Path(torch.__file__).parent.glob("lib/libgomp*.so*"))
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True, timeout=_SECONDS)
    parts = (_SOURCE.read_bytes(), version.stdout, _FLAGS, _processor(), [path.name for path in openmp])
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    library = cache_folder() / "kernels" / f"{digest}.so"
    if not library.exists():
        library.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with TemporaryDirectory(dir=library.parent) as folder:
            made = Path(folder) / library.name
            # Torch's own OpenMP library, so that Torch and the kernels share one set of threads
            command = [compiler, *_FLAGS, str(_SOURCE), *map(str, openmp), "-o", str(made)]
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=_SECONDS)
            made.replace(library)
    return library


def _processor() -> str:
    """Name what ``-march=native`` depends on; a cache folder may be shared between machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def _first_line(text: str) -> str:
    return next((line for line in text.splitlines() if line.strip()), "")[:200]
