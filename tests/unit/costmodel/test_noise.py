"""Noise of finished studies is stored per model and data set; the newest wins."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from lorascope.costmodel.noise import ASSUMED, Noise, StudyNoise, find_noise, keep_noise
from lorascope.spec.schema import StudySpec

FOUND = Noise(row=0.03, row_of_seed=0.02, seed=0.004, target_tokens=50.0)
SPEC = StudySpec(model="some/model", dataset="some/rows")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORASCOPE_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def known(spec: StudySpec) -> Noise | None:
    """Return the numbers that are known of a study's noise."""
    found = find_noise(spec)
    return None if found is None else Noise(**{name: getattr(found, name) for name in asdict(FOUND)})


def test_the_last_study_of_the_same_model_and_data_set_is_used() -> None:
    assert known(SPEC) is None
    keep_noise(SPEC, replace(FOUND, seed=0.1))
    keep_noise(SPEC, FOUND)
    assert known(SPEC) == FOUND
    for other in ({"model": "other/model"}, {"dataset": "other/rows"}, {"dataset": ("some/rows", "other/rows")}):
        assert known(SPEC.model_copy(update=other)) is None


def test_a_local_file_is_the_same_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.json").write_text("[]", encoding="utf-8")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    keep_noise(StudySpec(dataset="rows.json"), FOUND)
    monkeypatch.chdir(tmp_path / "other")
    assert known(StudySpec(dataset=str(tmp_path / "rows.json"))) == FOUND
    assert known(StudySpec(dataset="rows.json")) is None


def test_rows_of_four_times_the_tokens_vary_half_as_much() -> None:
    assert FOUND.at(200.0) == replace(FOUND, row=0.015, row_of_seed=0.01, target_tokens=200.0)


@pytest.mark.parametrize("change", [{"row": None}, {"row": float("nan")}, {"seed": -1.0}, {"target_tokens": 0.0}])
def test_broken_entries_are_ignored_and_replaced(folder: Path, change: dict[str, object]) -> None:
    folder.mkdir()
    entry = asdict(StudyNoise(model="some/model", dataset="some/rows", **asdict(FOUND)))
    (folder / "noise.json").write_text(json.dumps([{**entry, **change}, 1]), encoding="utf-8")
    assert known(SPEC) is None
    keep_noise(SPEC, FOUND)
    assert known(SPEC) == FOUND


def test_assumed_noise_is_that_of_the_simulated_plain_studies() -> None:
    """A row of a rank and of a trial 0.02, the slope over the ranks up to 0.02; a rank and its rate, seed by seed."""
    slopes = (0.5, 0.5, 1.0)
    assert ASSUMED.row**2 == pytest.approx(sum(2 * 0.02**2 + (slope * 0.02) ** 2 for slope in slopes) / 3)
    assert ASSUMED.row_of_seed**2 == pytest.approx(2 * 0.02**2)
    assert ASSUMED.seed**2 == pytest.approx(2 * (0.002**2 + 0.001**2))
