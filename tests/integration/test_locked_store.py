"""A run waits for a store that another program has locked."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path

import pytest

from lorascope.errors import LorascopeError
from lorascope.run import retry
from lorascope.store import connection as connect
from support.studies import execute, read_study, study_of


def test_locked_store_pauses_the_run(
    model_folders: Mapping[str, str], rows_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "WAIT_SECONDS", 0.05)
    monkeypatch.setattr(retry, "_PAUSE_SECONDS", 0.05)
    spec = study_of(model_folders["llama"], rows_file, max_steps=4, truncation=False)
    held: list[sqlite3.Connection] = []

    def lock(done: int) -> None:
        if done == 2:
            held.append(sqlite3.connect(tmp_path / "study" / "study.db", isolation_level=None))
            held[0].execute("BEGIN IMMEDIATE")

    def release(note: str) -> None:
        if "cannot write" in note:
            held[0].close()

    watcher = execute(spec, tmp_path / "study", lock, release)
    assert any("cannot write (database is locked)" in note for note in watcher.notes)
    assert "can write again; the run goes on" in watcher.notes
    execute(spec, tmp_path / "undisturbed")
    assert read_study(tmp_path / "study") == read_study(tmp_path / "undisturbed")


def test_store_that_stays_locked_ends_the_run_resumably(
    model_folders: Mapping[str, str], rows_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "WAIT_SECONDS", 0.05)
    monkeypatch.setattr(retry, "_PAUSE_SECONDS", 0.05)
    spec = study_of(model_folders["llama"], rows_file, max_steps=4, truncation=False)
    held: list[sqlite3.Connection] = []

    def at_step(done: int) -> None:
        if done == 2:
            held.append(sqlite3.connect(tmp_path / "study" / "study.db", isolation_level=None))
            held[0].execute("BEGIN IMMEDIATE")

    with monkeypatch.context() as patch, pytest.raises(LorascopeError, match=r"cannot write .* locked\n.*kept"):  # noqa: PT012
        patch.setattr(retry, "_MAX_SECONDS", 0.3)
        execute(spec, tmp_path / "study", at_step)
    held[0].close()
    execute(spec, tmp_path / "study")
    execute(spec, tmp_path / "undisturbed")
    assert read_study(tmp_path / "study") == read_study(tmp_path / "undisturbed")
