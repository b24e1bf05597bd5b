"""Files and folders that appear complete or not at all."""

from pathlib import Path

import pytest

from lorascope.atomic import new_file, new_folder, partial_path, write_whole


def break_off(aside: Path) -> None:
    aside.write_text("half")
    raise ZeroDivisionError


@pytest.mark.parametrize("derived", [False, True])
def test_file_keeps_its_content_if_writing_fails(tmp_path: Path, derived: bool) -> None:
    target = tmp_path / "summary.json"
    write_whole(target, "before", derived=derived)
    with pytest.raises(ZeroDivisionError), new_file(target, derived=derived) as aside:
        break_off(aside)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]
    write_whole(target, "caf\u00e9\n", derived=derived)
    assert target.read_bytes() == b"caf\xc3\xa9\n"
    assert list(tmp_path.iterdir()) == [target]


def test_derived_files_of_two_processes_do_not_collide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = partial_path(tmp_path / "x", derived=True)
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert partial_path(tmp_path / "x", derived=True) != first


def test_folder_is_renamed_when_complete(tmp_path: Path) -> None:
    target = tmp_path / "adapters" / "r8"
    partial_path(target).mkdir(parents=True)
    (partial_path(target) / "left by a kill").touch()
    with new_folder(target) as aside:
        (aside / "weights").write_text("one")
        assert not target.exists()
    assert [path.name for path in target.iterdir()] == ["weights"]
    with pytest.raises(ZeroDivisionError), new_folder(target, replace=True) as aside:
        break_off(aside / "weights")
    assert (target / "weights").read_text() == "one"
    with new_folder(target, replace=True) as aside:
        (aside / "weights").write_text("two")
    assert (target / "weights").read_text() == "two"
    assert list(target.parent.iterdir()) == [target]


def test_existing_folder_is_replaced_only_if_asked(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work").touch()
    with pytest.raises(OSError, match=r"not empty|exists"), new_folder(tmp_path / "mine"):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "work"]
