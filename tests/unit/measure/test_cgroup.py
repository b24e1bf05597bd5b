"""Limits of control groups, read from made-up folders in the layouts that systems and containers have."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from lorascope.measure.cgroup import cpu_quota, memory_limit

NO_LIMIT = "9223372036854771712"


def make_groups(folder: Path, membership: str, files: Mapping[str, str]) -> tuple[Path, Path]:
    for name, text in files.items():
        path = folder / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n", encoding="ascii")
    (folder / "membership").write_text(membership, encoding="utf-8")
    return folder / "cgroup", folder / "membership"


V1 = "9:name=systemd:/a\n4:memory:/docker/ab\n2:cpu,cpuacct:/docker/ab\n0::/\n"


@pytest.mark.parametrize(
    ("membership", "files", "quota", "limit"),
    [
        ("0::/\n", {}, None, None),
        ("0::/\n", {"cpu.max": "150000 100000", "memory.max": "2000000000"}, 1.5, 2_000_000_000),
        ("0::/\n", {"cpu.max": "max 100000", "memory.max": "max"}, None, None),
        (
            "0::/user/job\n",
            {"user/cpu.max": "200000 100000", "user/job/cpu.max": "max 100000", "user/job/memory.max": "7"},
            2.0,
            7,
        ),
        (
            "0::/user/job\n",
            {"cpu.max": "400000 100000", "user/job/cpu.max": "50000 100000", "user/memory.max": "5",
             "user/job/memory.max": "7", "other/cpu.max": "1000 100000", "other/memory.max": "1"},
            0.5,
            5,
        ),
        (  # the group that is named is the host's, and its limits are at the container's root
            "0::/../../system.slice/job\n",
            {"cpu.max": "300000 100000", "memory.max": "9"},
            3.0,
            9,
        ),
        (
            V1,
            {"cpu,cpuacct/docker/ab/cpu.cfs_quota_us": "250000", "cpu,cpuacct/docker/ab/cpu.cfs_period_us": "100000",
             "memory/docker/ab/memory.limit_in_bytes": "8", "memory/memory.limit_in_bytes": NO_LIMIT},
            2.5,
            8,
        ),
        (
            V1,
            {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "25000", "memory/memory.limit_in_bytes": "6",
             "unified/memory.max": "4"},
            2.0,
            4,
        ),
        (
            V1,
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000",
             "memory/memory.limit_in_bytes": NO_LIMIT},
            None,
            int(NO_LIMIT),
        ),
    ],
    ids=["none", "v2", "v2-max", "v2-above", "v2-smallest", "v2-namespace", "v1", "v1-container-root", "v1-unlimited"],
)  # fmt: skip
def test_cgroup_limit_is_the_smallest_on_the_way_to_the_root(
    tmp_path: Path, membership: str, files: Mapping[str, str], quota: float | None, limit: int | None
) -> None:
    places = make_groups(tmp_path, membership, files)
    assert cpu_quota(*places) == quota
    assert memory_limit(*places) == limit


def test_no_cgroups_means_no_limit(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path, tmp_path / "absent") is None
    assert memory_limit(tmp_path, tmp_path / "absent") is None
