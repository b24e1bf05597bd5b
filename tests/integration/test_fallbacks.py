"""Fallbacks chosen before training, and their notes."""

from collections.abc import Mapping

import pytest

from lorascope.errors import InputError
from lorascope.message import Message
from lorascope.modeling.backends.cpu import backend
from lorascope.run.prepare import prepare_study
from lorascope.text.say import say
from support.studies import Watcher, study_of


@pytest.mark.parametrize(
    ("fields", "notes"),
    [
        ({"kernels": True}, []),
        ({"kernels": False}, []),
        (
            {"kernels": False, "share_prefixes": "always"},
            ["Every row computes its prefix by itself", "(kernels: false)"],
        ),
        (
            {"packing": False, "share_prefixes": "always"},
            ["Every row computes its prefix by itself", "(packing: false)"],
        ),
    ],
)
def test_fallback_from_shared_prefixes_is_noted(
    model_folders: Mapping[str, str], rows_file: str, fields: dict[str, object], notes: list[str]
) -> None:
    watcher = Watcher()
    prepared = prepare_study(study_of(model_folders["llama"], rows_file, **fields), None, watcher)
    of_rows = list(map(say, prepared.splits.notes))
    assert watcher.notes[: len(of_rows)] == of_rows != []
    assert len(watcher.notes) - len(of_rows) == bool(notes)
    assert all(part in watcher.notes[-1] for part in notes)
    assert set(watcher.notes) <= set(map(say, prepared.resolved.data_notes))


def test_fallback_from_kernels_is_noted(
    model_folders: Mapping[str, str], rows_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "load_kernels", lambda: (None, Message("kernels.no_compiler")))
    watcher = Watcher()
    prepare_study(study_of(model_folders["llama"], rows_file), None, watcher)
    *_, note = watcher.notes
    assert note == "Steps are computed without compiled kernels, which takes longer (no C++ compiler is here)."


def test_resume_without_the_kernels_of_the_start_is_refused(
    model_folders: Mapping[str, str], rows_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = study_of(model_folders["llama"], rows_file)
    before = prepare_study(spec, None, Watcher()).resolved
    if not before.kernels:
        pytest.skip(say(before.kernels_reason))
    monkeypatch.setattr(backend, "load_kernels", lambda: (None, Message("kernels.no_compiler")))
    with pytest.raises(InputError, match=r"this machine has none \(no C\+\+ compiler is here\)"):
        prepare_study(spec, before, Watcher())


def test_resume_without_kernels_repeats_the_first_reason(
    model_folders: Mapping[str, str], rows_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, watcher = study_of(model_folders["llama"], rows_file), Watcher()
    with monkeypatch.context() as patch:
        patch.setattr(backend, "load_kernels", lambda: (None, Message("kernels.no_compiler")))
        before = prepare_study(spec, None, watcher).resolved
    again = Watcher()
    assert prepare_study(spec, before, again).resolved == before
    assert again.notes == watcher.notes != []
