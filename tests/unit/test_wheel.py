"""The wheel holds all that the program reads at run time."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

import lorascope
from lorascope.cli.skill import SKILL
from lorascope.modeling.backends.cpu import build
from lorascope.spec.load import PRESET_FOLDER

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "lorascope"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("wheel")))))


def held(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    files = {path.relative_to(PACKAGE.parent).as_posix() for path in PACKAGE.rglob("*") if path.is_file()}
    assert held(wheel) == {name for name in files if "__pycache__" not in name}
    assert wheel.name.startswith(f"lorascope-{lorascope.__version__}-py3-none-any")


def test_wheel_holds_what_is_no_python(wheel: Path) -> None:
    """Kernels' sources, catalogs, sentences, templates, the page's files, presets, schemas and the skill."""
    names = held(wheel)
    wanted = [
        SKILL, *PRESET_FOLDER.glob("*.yaml"), *Path(build.__file__).parent.glob("*.[ch]pp"),
        *(PACKAGE / "text" / "catalogs").rglob("*.po"), *(PACKAGE / "text" / "sentences").glob("*.toml"),
        *(PACKAGE / "report" / "templates").iterdir(), *(PACKAGE / "web" / "templates").iterdir(),
        *(PACKAGE / "web" / "static").iterdir(), *PACKAGE.rglob("*.schema.json"),
    ]  # fmt: skip
    assert {path.relative_to(PACKAGE.parent).as_posix() for path in wanted} <= names
    for suffix in (".cpp", ".hpp", ".po", ".toml", ".j2", ".js", ".css", ".svg", ".yaml", ".md", ".json"):
        assert any(name.endswith(suffix) for name in names), suffix


def test_program_runs_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """Unpacked elsewhere, away from the checkout."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    code = (
        "import sys; sys.path.insert(0, 'installed'); import lorascope; assert 'installed' in lorascope.__file__; "
        "from lorascope.cli import main; main(['skill'])"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, env={"PATH": ""}
    )
    assert done.stdout == SKILL.read_text(encoding="utf-8")
