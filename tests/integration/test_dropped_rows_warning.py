"""Lost rows are a warning before anything is trained, and a caution of the finished study."""

import json
from collections.abc import Mapping
from pathlib import Path

from lorascope.analysis import summarize
from lorascope.text.say import say
from support.studies import execute, study_of


def test_lost_rows_are_a_warning_before_training(model_folders: Mapping[str, str], tmp_path: Path) -> None:
    rows = [{"prompt": f"{n} " + "word " * (200 if n % 2 else 2), "completion": f" answer {n}"} for n in range(60)]
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows), encoding="utf-8")
    spec = study_of(model_folders["llama"], str(file), max_steps=2, eval_steps=2, truncation=False)
    watcher = execute(spec, tmp_path / "study")
    expected = "Dropped 30 of 60 examples of train: no answer left within max_length 48."
    assert watcher.warnings == [expected]
    assert watcher.phases.index("reading the rows") < watcher.phases.index("loading the model")
    (caution,) = (caution for caution in summarize(tmp_path / "study").cautions if caution.kind == "dropped_rows")
    assert say(caution.text) == expected
