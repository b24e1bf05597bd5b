"""Calibrations are stored per device, precision and model size, and never fail a study."""

from dataclasses import replace
from pathlib import Path

import pytest

from lorascope.costmodel.calibration import Calibration, find_calibration, keep_calibration


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORASCOPE_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def entry(parameters: int = 10**8, factor: float = 1.2, device: str = "L4", dtype: str = "bfloat16") -> Calibration:
    return Calibration(device=device, dtype=dtype, parameters=parameters, factor=factor, joint_factor=1.1, rest_bytes=7)


def test_calibration_is_empty_at_first() -> None:
    assert find_calibration("L4", "bfloat16", 10**9) is None


def test_calibration_of_the_nearest_model_size_is_used() -> None:
    for known in (entry(10**6, 9.0), entry(10**8, 1.2), entry(10**8, 5.0, dtype="float32"), entry(10**9, 2.0, "T4")):
        keep_calibration(known)
    assert find_calibration("L4", "bfloat16", 3 * 10**9) == entry(10**8, 1.2)
    assert find_calibration("L4", "bfloat16", 7 * 10**10) is None
    assert find_calibration("L4", "bfloat16", 2 * 10**6) == entry(10**6, 9.0)
    assert find_calibration("L4", "float64", 10**8) is None


def test_calibration_of_a_size_is_replaced(folder: Path) -> None:
    keep_calibration(entry(factor=1.2))
    keep_calibration(entry(factor=1.4))
    assert find_calibration("L4", "bfloat16", 10**8) == entry(factor=1.4)
    assert [path.name for path in folder.iterdir()] == ["calibration.json"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[1]",
        '[{"device": "L4"}]',
        "null",
        '[{"device": "L4", "dtype": "bfloat16", "parameters": 0, "factor": NaN, "rest_bytes": 1}]',
    ],
)
def test_damaged_calibration_file_is_ignored_and_replaced(folder: Path, content: str) -> None:
    folder.mkdir()
    (folder / "calibration.json").write_text(content, encoding="utf-8")
    assert find_calibration("L4", "bfloat16", 10**8) is None
    keep_calibration(entry())
    assert find_calibration("L4", "bfloat16", 10**8) == entry()


def test_calibration_of_another_cost_model_is_ignored(folder: Path) -> None:
    keep_calibration(replace(entry(factor=3.0), cost_model=1))
    assert find_calibration("L4", "bfloat16", 10**8) is None
    keep_calibration(entry(10**7))
    assert find_calibration("L4", "bfloat16", 10**8) == entry(10**7)


def test_calibration_without_a_writable_folder_is_skipped(folder: Path) -> None:
    folder.write_text("a file is in its place", encoding="utf-8")
    keep_calibration(entry())
    assert find_calibration("L4", "bfloat16", 10**8) is None
