"""The skill for coding agents: its form, its installation, and that what it names exists."""

import json
import re
from pathlib import Path

import pytest
import yaml

from lorascope.cli import main
from lorascope.cli.skill import SKILL


def call(*arguments: str) -> str | int | None:
    with pytest.raises(SystemExit) as caught:
        main(["skill", *arguments])
    return caught.value.code


def test_skill_has_the_form_that_agents_read() -> None:
    _, head, body = SKILL.read_text(encoding="utf-8").split("---\n", 2)
    facts = yaml.safe_load(head)
    assert facts["name"] == SKILL.parent.name
    assert re.fullmatch(r"[a-z0-9-]{1,64}", facts["name"])
    assert 0 < len(facts["description"]) <= 1024
    assert len(body.splitlines()) < 500


def test_skill_is_installed_and_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "agent" / "skills" / "lorascope" / "SKILL.md"
    for _ in range(2):
        assert call("--install", str(tmp_path / "agent" / "skills")) == 0
        assert capsys.readouterr().out == f"{target}\n"
        assert target.read_bytes() == SKILL.read_bytes()
        target.write_text("an earlier version")
    assert call("--install", str(tmp_path / "agent" / "skills"), "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(target)}


def test_skill_is_printed_without_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert call() == 0
    assert capsys.readouterr().out == SKILL.read_text(encoding="utf-8")
