"""A study has one run at a time."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lorascope.errors import InputError
from lorascope.run import study
from lorascope.spec.load import dump_spec
from lorascope.store import FolderLock
from lorascope.store.folder import check_disk
from support.studies import execute, read_study, study_of

Lorascope = Callable[..., tuple[int, str, str]]
HOLD = """
import sys
from pathlib import Path
from lorascope.store import FolderLock
with FolderLock(Path(sys.argv[1])) as held:
    held.acquire()
    print("held", flush=True)
    sys.stdin.read()
"""


def test_second_run_in_a_folder_is_refused_before_loading(
    model_folders: Mapping[str, str], rows_file: str, tmp_path: Path, lorascope: Lorascope
) -> None:
    spec, folder = study_of(model_folders["llama"], rows_file, max_steps=2, truncation=False), tmp_path / "study"
    execute(spec, folder)
    (tmp_path / "my.yaml").write_text(dump_spec(spec), encoding="utf-8")
    command = ("run", tmp_path / "my.yaml", "--out", folder)
    assert sorted(path.name for path in folder.iterdir()) == ["adapters", "study.db", "study.yaml"]
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder / "study.lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        code, out, err = lorascope(*command)
        assert code == 2
        assert f"{folder} is in use: process {holder.pid} on {os.uname().nodename} runs this study" in err
        assert "reading the tokenizer" not in out
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
        holder.kill()
    code, out, err = lorascope(*command)
    assert (code, err) == (0, "")


def test_concurrent_start_of_a_study_refuses_one_run(
    model_folders: Mapping[str, str], rows_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both find an empty folder; while one still loads the model the other takes it, or has done all by then."""
    spec, folder = study_of(model_folders["llama"], rows_file, max_steps=2, truncation=False), tmp_path / "study"

    def meanwhile_taken(*arguments: Any) -> None:
        check_disk(*arguments)
        folder.mkdir()
        held.acquire()

    def meanwhile_done(*arguments: Any) -> None:
        monkeypatch.setattr(study, "check_disk", check_disk)
        execute(spec, folder)

    with FolderLock(folder / "study.lock") as held:
        monkeypatch.setattr(study, "check_disk", meanwhile_taken)
        with pytest.raises(InputError, match="in use"):
            execute(spec, folder)
    monkeypatch.setattr(study, "check_disk", meanwhile_done)
    with pytest.raises(InputError, match="another run began this study"):
        execute(spec, folder)
    assert {outcome.state for outcome in read_study(folder).outcomes.values()} == {"finished"}
