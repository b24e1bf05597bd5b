"""Help: short with examples, or every flag; nothing broken in the middle of a word."""

import re
import shlex

import pytest

from lorascope.cli import main
from lorascope.cli.help import _COMMON, WITH_STUDY, epilogue
from lorascope.spec.load import preset_names
from lorascope.spec.schema import StudySpec

FLAGS = {f"--{name.replace('_', '-')}" for name in StudySpec.model_fields}
GROUPS = ("Study", "Data", "LoRA", "Training", "Answer", "Compute")


def helped(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code == 0
    return capsys.readouterr().out


def flags_in(text: str) -> set[str]:
    return set(re.findall(r"^│ *(--[a-z0-9-]+)", text, re.MULTILINE))


@pytest.mark.parametrize("command", sorted(WITH_STUDY))
def test_help_shows_the_common_flags_by_group(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    text = helped(capsys, monkeypatch, command, "--help")
    assert flags_in(text) <= _COMMON | {"--no-until-decided"}
    assert flags_in(text) >= _COMMON & FLAGS
    assert re.findall(r"─ (\w+) ─", text) == ["Arguments", *GROUPS]
    assert all(name in text for name in preset_names())
    assert f"lorascope {command} --help-all" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("command", sorted(WITH_STUDY))
def test_all_help_shows_every_flag(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    text = helped(capsys, monkeypatch, command, "--help-all")
    assert flags_in(text) >= FLAGS
    names = [line[2:34] for line in text.splitlines() if line.startswith("│ --")]
    assert not [name for name in names if re.search(r"--[a-z0-9-]+-(?= |$)", name)]
    assert "--per-device-train-batch-size N" in text


def test_short_help_returns_after_all_of_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    helped(capsys, monkeypatch, "run", "--help-all")
    assert flags_in(helped(capsys, monkeypatch, "run", "--help")) <= _COMMON | {"--no-until-decided"}


@pytest.mark.parametrize("command", sorted(WITH_STUDY))
def test_examples_name_flags_that_exist(command: str) -> None:
    examples = [line for line in epilogue(command).splitlines() if line.startswith("  lorascope")]
    assert len(examples) >= 2
    for example in examples:
        assert len(example) <= 80
        given = {word for word in shlex.split(example) if word.startswith("--")}
        assert given <= FLAGS | _COMMON
