"""Limits and other ways to read a study: refused before joint training, and changed without training again."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from lorascope.analysis import summarize
from lorascope.errors import InputError
from lorascope.report import write_report
from lorascope.spec.load import load_spec
from lorascope.spec.schema import ANALYSIS_FIELDS, StudySpec
from support.studies import execute, read_study, study_of


@pytest.fixture
def spec(model_folders: Mapping[str, str], rows_file: str) -> StudySpec:
    return study_of(model_folders["llama"], rows_file, cost="quick")


def test_limits_that_no_rank_meets_are_refused_and_can_be_raised(spec: StudySpec, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    with pytest.raises(InputError) as caught:
        execute(spec.model_copy(update={"max_memory": "1MB", "max_seconds": 1e6}), folder)
    # which of two tiny ranks takes less memory is chance
    assert re.search(r"no rank is within the limits; rank [24] comes nearest: peak memory", caught.value.problem)
    assert "(limit 1.0 MB)" in caught.value.problem
    assert "raise max_memory to " in caught.value.remedy
    assert "max_seconds" not in str(caught.value)
    assert not any(read_study(folder).steps.values())
    measured = summarize(folder).ranks
    execute(spec.model_copy(update={"max_memory": "64GB"}), folder)
    summary = summarize(folder)
    assert summary.study.complete
    assert [part.peak_memory_bytes for part in summary.ranks] == [part.peak_memory_bytes for part in measured]


def test_changed_analysis_fields_train_nothing(spec: StudySpec, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    execute(spec, folder)
    write_report(folder)
    before, records = json.loads((folder / "summary.json").read_text()), read_study(folder)
    changes = {
        "tolerance": 3.0, "convergence_band": 0.5, "max_memory": "1MB", "max_seconds": 1e-6, "max_adapter_mb": 1e-6,
        "prefer": "loss",
    }  # fmt: skip
    others = {
        "executor",
        "workers",
        "cost",
        "time_budget",
        "report_to",
        "samples",
        "max_new_tokens",
        "sample_temperature",
        "metrics",
        "lm_eval",
        "lm_eval_limit",
    }
    assert set(changes) | others == ANALYSIS_FIELDS
    changed = spec.model_copy(update=changes)
    watcher = execute(changed, folder)
    assert watcher.steps == []
    assert watcher.notes == ["this study is complete; nothing was trained"]
    assert load_spec(folder / "study.yaml", {}) == changed
    assert read_study(folder) == records
    write_report(folder)
    after = json.loads((folder / "summary.json").read_text())
    assert after["trials"] == before["trials"]
    assert after["study"]["tolerance"] == 3.0
    assert after["recommendation"]["use"]["rank"] is None
    assert "comes nearest" in after["recommendation"]["use"]["reason"]
    execute(spec, folder)
    write_report(folder)
    assert json.loads((folder / "summary.json").read_text()) == before


def test_unfinished_study_resumes_under_a_changed_tolerance(spec: StudySpec, tmp_path: Path) -> None:
    def stop(step: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(spec, tmp_path / "study", stop)
    execute(spec.model_copy(update={"tolerance": 0.1}), tmp_path / "study")
    execute(spec, tmp_path / "whole")
    assert summarize(tmp_path / "study").study.tolerance == 0.1
    assert read_study(tmp_path / "study") == read_study(tmp_path / "whole")
