import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]
PINS = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]


def name(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def test_every_pin_is_one_exact_public_version() -> None:
    assert [pin for pin in PINS if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)] == []
    assert len({name(pin) for pin in PINS}) == len(PINS)


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    asked = [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["demo"],
        *project["project"]["optional-dependencies"]["ko"],
        *project["dependency-groups"]["test"],
        *project["dependency-groups"]["check"],
        *project["dependency-groups"]["bench"],
        *project["dependency-groups"]["docs"],
    ]
    assert {name(requirement) for requirement in asked} <= {name(pin) for pin in PINS}
