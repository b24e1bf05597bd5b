"""How the kernels are compiled, found again, and done without."""

import ctypes
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lorascope.message import Message
from lorascope.modeling.backends.cpu import build
from lorascope.text.say import say

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the compiled kernels are for Linux")
needs_compiler = pytest.mark.skipif(not (shutil.which("g++") or shutil.which("c++")), reason="no C++ compiler is here")

ARM = "aarch64-linux-gnu-g++"
MakeCompiler = Callable[[str], Path]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, a source of one line, and nothing loaded yet."""
    source = tmp_path / "answer.cpp"
    source.write_text('extern "C" int answer = 42;', encoding="utf-8")
    monkeypatch.setattr(build, "_SOURCE", source)
    monkeypatch.setenv("LORASCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    build.load_kernels.cache_clear()
    yield tmp_path / "cache"
    build.load_kernels.cache_clear()


@pytest.fixture
def make_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeCompiler:
    """Put a shell script in the compiler's place; each compilation is a line of the file that is returned."""

    def make(then: str) -> Path:
        script, calls = tmp_path / "some-c++", tmp_path / "calls"
        real = shutil.which("g++") or shutil.which("c++")
        script.write_text(
            f'#!/bin/sh\nif [ "$1" = --version ]; then echo 1.0; exit; fi\necho called >> "{calls}"\n'
            + then.replace("COMPILE", f'"{real}" "$@"'),
            encoding="utf-8",
        )
        script.chmod(0o755)
        calls.write_text("", encoding="utf-8")
        monkeypatch.setenv("CXX", str(script))
        return calls

    return make


def answer(library: ctypes.CDLL | None) -> int:
    assert library is not None
    return ctypes.c_int.in_dll(library, "answer").value


@needs_compiler
def test_build_compiles_once_for_all_processes(make_compiler: MakeCompiler, cache: Path) -> None:
    calls = make_compiler("COMPILE")
    library, how = build.load_kernels()
    assert answer(library) == 42
    assert how == Message("kernels.compiled", compiler="some-c++")
    build.load_kernels()
    build.load_kernels.cache_clear()  # what another process would begin with
    assert answer(build.load_kernels()[0]) == 42
    assert calls.read_text(encoding="utf-8").splitlines() == ["called"]
    (file,) = (cache / "kernels").iterdir()
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert not file.stat().st_mode & 0o022


@needs_compiler
@pytest.mark.parametrize("what", ["_SOURCE", "_FLAGS", "_processor"])
def test_build_key_covers_source_flags_and_processor(
    make_compiler: MakeCompiler, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str
) -> None:
    calls = make_compiler("COMPILE")
    build.load_kernels()
    if what == "_SOURCE":
        build._SOURCE.write_text('extern "C" int answer = 43;', encoding="utf-8")
    else:
        other = {"_FLAGS": (*build._FLAGS, "-g0"), "_processor": lambda: "another"}
        monkeypatch.setattr(build, what, other[what])
    build.load_kernels.cache_clear()
    assert answer(build.load_kernels()[0]) == (43 if what == "_SOURCE" else 42)
    assert len(calls.read_text(encoding="utf-8").splitlines()) == 2


@pytest.mark.skipif(not {"avx512_bf16", "amx_bf16"} & set(build._processor().split()), reason="AVX-512 has no bfloat16")
@pytest.mark.parametrize(
    ("ceiling", "flags", "multiplies"),
    [
        ("avx2", ["-march=x86-64-v3"], False),
        ("AVX512_CORE", ["-march=x86-64-v4"], False),
        ("AVX512_CORE_BF16", ["-march=x86-64-v4", "-mavx512bf16"], True),
        ("AVX512_CORE_AMX", ["-march=native"], True),
    ],
)
def test_a_ceiling_for_torchs_products_is_one_for_the_kernels(
    monkeypatch: pytest.MonkeyPatch, ceiling: str, flags: list[str], multiplies: bool
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", ceiling)
    assert list(build.compiler_flags())[-len(flags) :] == flags
    assert build.supports_bfloat16_matmul() == multiplies


@pytest.mark.skipif(not shutil.which(ARM), reason="no cross compiler: Debian's package g++-aarch64-linux-gnu")
def test_kernels_compile_for_arm(tmp_path: Path) -> None:
    source = Path(build.__file__).with_name("kernels.cpp")
    flags = [flag for flag in build._FLAGS if flag != "-mprefer-vector-width=512"]
    subprocess.run([ARM, *flags, "-march=armv8-a", str(source), "-o", str(tmp_path / "arm.so")], check=True)


def test_a_ceiling_above_the_processor_limits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_processor", lambda: "flags : avx2 fma bmi2 f16c")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")
    assert build.ceiling() == ""
    assert build.compiler_flags()[-1] == "-march=native"


@needs_compiler
def test_build_by_concurrent_processes(make_compiler: MakeCompiler, cache: Path) -> None:
    calls = make_compiler("sleep 0.3; COMPILE")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: build.load_kernels.__wrapped__()[0], range(4)))
    assert [answer(library) for library in found] == [42] * 4
    assert len(calls.read_text(encoding="utf-8").splitlines()) > 1
    assert len(list((cache / "kernels").iterdir())) == 1


@pytest.mark.parametrize("named", [None, "no-such-c++"])
def test_build_without_a_compiler_gives_a_reason(
    monkeypatch: pytest.MonkeyPatch, cache: Path, tmp_path: Path, named: str | None
) -> None:
    if named is None:
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        monkeypatch.setenv("CXX", named)
    assert build.load_kernels() == (None, Message("kernels.no_compiler"))
    assert not cache.exists()


def test_build_is_linux_only(monkeypatch: pytest.MonkeyPatch, make_compiler: MakeCompiler) -> None:
    calls = make_compiler("exit 1")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert build.load_kernels() == (None, Message("kernels.linux_only"))
    assert not calls.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("then", "why"),
    [
        ("echo unknown option >&2; echo more >&2; exit 1", "unknown option"),
        ("echo 'x.cpp: In function f:' >&2; echo 'x.cpp:1: error: what?' >&2; exit 1", "x.cpp:1: error: what?"),
        ("printf '\\377 bad' >&2; exit 1", "\ufffd bad"),
        ("exit 3", "exit code 3"),
    ],
)  # fmt: skip
def test_build_error_is_the_reason(make_compiler: MakeCompiler, cache: Path, then: str, why: str) -> None:
    make_compiler(then)
    assert build.load_kernels() == (None, Message("kernels.not_compiled", compiler="some-c++", error=why))
    assert not list((cache / "kernels").iterdir())


def test_build_stops_a_hanging_compiler(make_compiler: MakeCompiler, monkeypatch: pytest.MonkeyPatch) -> None:
    make_compiler("exec sleep 60")
    monkeypatch.setattr(build, "_SECONDS", 0.5)
    assert build.load_kernels() == (None, Message("kernels.timeout", compiler="some-c++", seconds=0.5))


def test_build_of_an_unloadable_library_gives_a_reason(make_compiler: MakeCompiler) -> None:
    make_compiler('for made; do :; done; echo "no library" > "$made"')
    library, how = build.load_kernels()
    assert library is None
    assert how.code == "kernels.not_loaded"


def test_build_with_an_unwritable_cache_gives_a_reason(make_compiler: MakeCompiler, cache: Path) -> None:
    calls = make_compiler("COMPILE")
    cache.write_text("a file where the folder should be", encoding="utf-8")
    library, how = build.load_kernels()
    assert library is None
    assert str(cache) in say(how)
    assert not calls.read_text(encoding="utf-8")


@needs_compiler
def test_build_refuses_a_cache_that_others_may_write(make_compiler: MakeCompiler, cache: Path) -> None:
    make_compiler("COMPILE")
    error = f"others may write to {cache / 'kernels'}; set LORASCOPE_CACHE to a folder of your own"
    refused = (None, Message("kernels.not_loaded", error=error))
    assert build.load_kernels()[0] is not None
    for folder, mode, allowed in (
        (cache / "kernels", 0o770, False),
        (cache / "kernels", 0o707, False),
        (cache / "kernels", 0o755, True),
        (cache, 0o777, False),
        (cache, 0o1777, True),  # as /tmp: others may add files, and not rename ours
    ):
        before = stat.S_IMODE(folder.stat().st_mode)
        folder.chmod(mode)
        build.load_kernels.cache_clear()
        found = build.load_kernels()
        folder.chmod(before)
        assert (found[0] is not None) if allowed else (found == refused)


@needs_compiler
def test_build_refuses_a_cache_of_another_user(
    make_compiler: MakeCompiler, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = make_compiler("COMPILE")
    (cache / "kernels").mkdir(parents=True, mode=0o700)
    if os.getuid() == 0:
        os.chown(cache / "kernels", 4321, -1)
    else:
        monkeypatch.setattr(os, "getuid", lambda: 4321)
    library, how = build.load_kernels()
    assert library is None
    assert "others may write" in say(how)
    assert not calls.read_text(encoding="utf-8")
