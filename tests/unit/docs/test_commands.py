"""Every command on a page can be given: the real parsers read it, and every file and target it names exists."""

import re
import shlex
import tomllib

import pytest
import yaml
from cyclopts import CycloptsError

from lorascope.cli.app import app
from lorascope.cli.flags import given_fields
from lorascope.errors import InputError
from lorascope.spec.load import find_study, load_spec, preset_names
from lorascope.spec.schema import StudySpec
from support.pages import ROOT, WRITTEN, Block, blocks

OPERATORS = {"|", "||", "&&", ";", ">", "2>"}
TARGETS = set(re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1].split())
EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"])
PINS = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()


def commands(text: str) -> list[list[str]]:
    """Split a shell block into commands: continued lines joined; comments, variables and redirections left out."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = next((i for i, word in enumerate(words) if word in OPERATORS), len(words))
            command, operator, words = words[:end], words[end : end + 1], words[end + 1 :]
            if operator in ([">"], ["2>"]):
                words = words[1:]
            while command and re.fullmatch(r"[A-Z_]+=.*", command[0]):
                command = command[1:]
            if command:
                found.append(command)
    return found


def check_lorascope(words: list[str]) -> None:
    function, bound, unknown = app.parse_args(words, exit_on_error=False, print_error=False)
    assert function.__name__ == words[0]
    assert not unknown
    if function.__name__ in {"run", "plan"}:
        study = bound.arguments.get("study")
        preset = find_study(study) if study in preset_names() else None
        assert preset is not None or study is None or study.endswith(".yaml") or study.startswith("studies/")
        load_spec(preset, given_fields(bound.arguments.get("flags")))


def check_pip(words: list[str]) -> None:
    assert words[0] == "install"
    for word in words[1:]:
        extra = re.fullmatch(r"\.(?:\[([\w-]+)\])?", word)
        known = word in PINS or word in {"--no-deps", "peft"} or (extra and (extra[1] is None or extra[1] in EXTRAS))
        assert known, word


def check_tool(program: str, words: list[str]) -> None:
    """A command that installs the checkout, alone or with extras, and for uvx what it then runs."""
    option, where, *rest = words
    assert option == {"pipx": "install", "uvx": "--from"}[program]
    check_pip(["install", where])
    if rest:
        assert rest[0] == "lorascope"
        check_lorascope(rest[1:])


def check_docker(words: list[str]) -> None:
    assert (ROOT / "Dockerfile").is_file()
    if words[0] == "build":
        assert words[-1] == "."
    else:
        assert words[0] == "run"
        check_lorascope(words[words.index("lorascope") + 1 :])


def check(words: list[str]) -> None:
    program, rest = words[0], words[1:]
    if program == "lorascope":
        check_lorascope(rest)
    elif program == "make":
        assert {word for word in rest if "=" not in word} <= TARGETS
    elif program == "pip":
        check_pip(rest)
    elif program in {"python", ".venv/bin/python"}:
        assert (ROOT / rest[0]).is_file()
    elif program in {"pipx", "uvx"}:
        check_tool(program, rest)
    elif program == "docker":
        check_docker(rest)
    elif program in {"wandb", "tensorboard"}:
        assert program in EXTRAS
    elif program == "hf":
        assert rest == ["auth", "login"]
    else:
        assert program == "echo", f"nothing checks {program!r}; teach this test to"


@pytest.mark.parametrize("block", blocks("sh"), ids=str)
def test_shell_blocks_are_valid_commands(block: Block) -> None:
    found = commands(block.text)
    assert found
    for words in found:
        check(words)


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_yaml_blocks_are_valid_studies(block: Block) -> None:
    StudySpec.model_validate(yaml.safe_load(block.text))


def test_command_checks_refuse_wrong_commands() -> None:
    for words in (["run", "--rank", "8"], ["run", "--ranks", "0"], ["run", "no-such-preset"], ["predict"]):
        with pytest.raises((AssertionError, CycloptsError, InputError)):
            check_lorascope(words)
    assert commands("A=1 make demo && \\\n lorascope doctor > x.txt  # why\n") == [
        ["make", "demo"],
        ["lorascope", "doctor"],
    ]


def test_every_code_block_has_a_checked_language() -> None:
    checked = {"sh", "yaml", "python", "text"}
    fences = [line for page in WRITTEN for line in page.read_text(encoding="utf-8").splitlines() if line[:3] == "```"]
    assert {fence[3:] for fence in fences} - {""} <= checked
    opened = sum(fence != "```" for fence in fences)
    assert opened * 2 == len(fences), "a block without a language"
