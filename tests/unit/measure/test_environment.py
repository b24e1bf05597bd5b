import os
import subprocess
from pathlib import Path

import psutil
import pytest
import torch

from lorascope.measure import environment as module
from lorascope.measure.environment import environment, mask_credentials, source_commit


def test_environment_describes_this_machine() -> None:
    record = environment(device="cpu", device_name="here", seeds=[3, 4], command="lorascope run --hf-token abc")
    assert record.seeds == (3, 4)
    assert record.cpu
    assert record.cpu_cores >= 1
    assert record.threads >= 1
    assert record.memory_bytes > 10**8
    assert record.packages["torch"]
    assert record.command == "lorascope run --hf-token ***"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("--dataset https://me:pass@host/x.json", "--dataset https://***@host/x.json"),
        ("https://host/x?token=abc&rows=3", "https://host/x?token=***&rows=3"),
        ("HF_TOKEN=abc lorascope run", "HF_TOKEN=*** lorascope run"),
        ("--api-key abc --out d", "--api-key *** --out d"),
        ("--model hf_abcdefghijkl", "--model hf_***"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("https://host/x?X-Amz-Signature=ab12&a=b", "https://host/x?X-Amz-Signature=***&a=b"),
    ],
)
def test_credentials_are_masked(text: str, masked: str) -> None:
    assert mask_credentials(text) == masked


def test_text_without_credentials_is_unchanged() -> None:
    text = "lorascope run --model facebook/opt-350m --tokens-per-pass 512 --dataset keys.json --out monkey/design=4"
    assert mask_credentials(text) == text


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_source_commit_is_that_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    monkeypatch.setattr(module, "_SOURCE_ROOT", checkout)
    assert source_commit() is None
    git(checkout, "init")
    (checkout / "file").write_text("one")
    git(checkout, "add", "file")
    git(checkout, "commit", "-m", "first")
    commit = source_commit()
    assert len(commit) == 40
    (checkout / "file").write_text("two")
    assert source_commit() == f"{commit}-dirty"


def test_cpu_model_falls_back_to_the_platform_without_cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CPUINFO", tmp_path / "absent")
    assert module.cpu_model()
    assert module.cpu_flags() == frozenset()
    monkeypatch.setattr(module, "_CPUINFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: A CPU 3000\nflags\t\t: fpu avx512_bf16\n\n")
    assert module.cpu_model() == "A CPU 3000"
    assert module.cpu_flags() == {"fpu", "avx512_bf16"}


@pytest.mark.parametrize(
    ("affinity", "quota", "cores"), [(8, None, 8), (8, 2.0, 2), (8, 2.6, 3), (8, 0.1, 1), (1, 4.0, 1)]
)
def test_usable_cores_follow_affinity_and_cpu_quota(
    monkeypatch: pytest.MonkeyPatch, affinity: int, quota: float | None, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)))
    monkeypatch.setattr(module, "cpu_quota", lambda: quota)
    assert module.usable_cores() == cores


def test_usable_memory_follows_the_limit_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    total = psutil.virtual_memory().total
    for limit, usable in ((None, total), (2 * total, total), (5, 5)):
        monkeypatch.setattr(module, "memory_limit", lambda limit=limit: limit)
        assert module.usable_memory() == usable


@pytest.mark.parametrize(
    ("before", "cores", "chosen", "after"), [(4, 2, None, 2), (1, 2, None, 1), (4, 2, "4", 4), (2, 2, None, 2)]
)
def test_threads_are_limited_to_usable_cores_unless_the_user_chose(
    monkeypatch: pytest.MonkeyPatch, before: int, cores: int, chosen: str | None, after: int
) -> None:
    threads = [before]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(module, "usable_cores", lambda: cores)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    if chosen is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", chosen)
    module.limit_threads()
    assert threads[-1] == after
