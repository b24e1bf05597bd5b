"""NVML's readings through the real path, nvidia-ml-py's ctypes, against a library that the test compiles."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lorascope.measure.nvml import Gpus, visible_gpus

STUB = Path(__file__).with_name("nvml_stub.c")
UUIDS = [f"GPU-{start}-0000-0000-0000-000000000000" for start in ("aaaaaaaa", "bbbbbbbb", "bbcccccc")]
READ = """
import json, sys
from dataclasses import asdict
from lorascope.measure.nvml import Gpus
only, times = json.loads(sys.argv[1]), int(sys.argv[2])
with Gpus(only) as gpus:
    found = [[asdict(sample) for sample in gpus.sample(float(n))] for n in range(times)]
with Gpus(only) as again:  # what was closed can be opened again
    assert len(again.sample(0.0)) in (len(found[0]), len(found[-1]))
print(json.dumps(found))
"""
SAMPLE = """
import json, time
from lorascope.measure.nvml import Gpus
from lorascope.measure.sampler import SystemSampler
found = []
with SystemSampler(0.01, lambda sample, gpus: found.append([gpu.uuid for gpu in gpus]), Gpus()):
    while len(found) < 6:
        time.sleep(0.01)
print(json.dumps(found))
"""
Call = Callable[..., list]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("nvml")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", STUB], check=True)
    return folder


@pytest.fixture
def call(library: Path) -> Call:
    """Run a program that finds the stub where it looks for the driver's library."""

    def run(program: str, *arguments: object, **environ: str) -> list:
        kept = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        result = subprocess.run(
            [sys.executable, "-W", "error", "-c", program, *map(str, arguments)],
            env=kept | {"LD_LIBRARY_PATH": str(library)} | environ, check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    return run


def names(samples: list) -> list[str]:
    return [sample["uuid"] for sample in samples]


def test_nvml_reads_every_counter_of_several_gpus(call: Call) -> None:
    first, second = call(READ, "null", 2)
    assert names(first) == names(second) == UUIDS
    assert first[0] == {
        "seconds": 0.0, "rank": None, "uuid": UUIDS[0], "name": "Test A100", "memory_used_bytes": 10**9,
        "memory_total_bytes": 40 * 10**9, "utilization_percent": 91, "memory_utilization_percent": 0,
        "power_watts": 70.5, "sm_clock_mhz": 1410, "memory_clock_mhz": 1215, "temperature_celsius": 55,
        "throttle_reasons": 0x24, "targets": "",
    }  # fmt: skip
    assert second[0]["memory_used_bytes"] == 2 * 10**9


def test_nvml_counter_without_support_is_none(call: Call) -> None:
    ((poor,),) = call(READ, "1", 1)
    unknown = {"utilization_percent", "memory_utilization_percent", "power_watts", "throttle_reasons", "rank"}
    assert {name for name, value in poor.items() if value is None} == unknown
    assert poor["name"] == "Test T4"


def test_nvml_leaves_out_a_lost_gpu(call: Call) -> None:
    assert [names(samples) for samples in call(READ, "null", 4, NVML_STUB_LOST="0:2")] == [
        UUIDS, UUIDS, UUIDS[1:], UUIDS[1:],
    ]  # fmt: skip


def test_sampler_goes_on_without_a_lost_gpu(call: Call) -> None:
    found = call(SAMPLE, NVML_STUB_LOST="2:3")
    assert found[:3] == [UUIDS] * 3
    assert found[3:] == [UUIDS[:2]] * (len(found) - 3)


@pytest.mark.parametrize(
    ("visible", "only", "seen"),
    [
        ("2,0", None, [2, 0]),
        ("2,0", 1, [0]),
        ("", None, []),
        ("-1", None, []),
        ("1,-1,0", None, [1]),
        ("0,0", None, []),
        ("7,0", None, []),
        (UUIDS[2], None, [2]),
        ("GPU-aa," + UUIDS[1], None, [0, 1]),
        ("GPU-bb", None, []),
        ("GPU-dd," + UUIDS[0], None, []),
        ("0", UUIDS[2], [2]),
        ("0", UUIDS[1:], [1, 2]),
        ("1", 4, []),
    ],
)
def test_nvml_reads_only_gpus_visible_to_cuda(
    call: Call, visible: str, only: str | list[str] | int | None, seen: list[int]
) -> None:
    (samples,) = call(READ, json.dumps(only), 1, CUDA_VISIBLE_DEVICES=visible)
    assert names(samples) == [UUIDS[place] for place in seen]


def test_nvml_without_a_driver_has_no_gpus() -> None:
    with Gpus(environ={}) as gpus:
        assert gpus.sample(0.0) == []


def test_cuda_visible_devices_is_parsed_as_cuda_does() -> None:
    assert visible_gpus({}) is None
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": " 1 , MIG-x, GPU-y,no-name,0"}) == [1, "MIG-x", "GPU-y"]
