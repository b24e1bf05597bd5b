"""The package never runs code that came as data, but for answers in a process with limits."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import lorascope

SOURCE = Path(lorascope.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "code", "codeop"}
CALLS = {"eval", "exec", "compile", "__import__", "torch.load", "torch.hub.load", "np.load", "numpy.load",
         "yaml.unsafe_load", "yaml.full_load", "os.system", "os.popen", "shutil.unpack_archive",
         "tarfile.open"}  # fmt: skip
RUNS_ANSWERS = {SOURCE / "scoring" / "confined.py": {"exec", "compile"}}
"""A script that limits itself before it runs the code that ``python_tests`` judges; nothing imports it."""
SAFE_LOADERS = {"_UniqueKeyLoader"}
"""Subclasses of yaml.SafeLoader."""


def calls(file: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_source_files_are_found() -> None:
    assert len(FILES) > 100


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_source_does_not_unpickle_or_evaluate(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.partition(".")[0] for name in names} & MODULES
    for name, call in calls(file):
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert name not in CALLS - RUNS_ANSWERS.get(file, set()), f"line {call.lineno}"
        assert given.get("shell", "False") == "False"
        assert given.get("allow_pickle", "False") == "False"
        if name == "zipfile.ZipFile":
            assert ast.unparse(call.args[1]) == "'w'", "archives are written, never read"
        if name == "yaml.load":
            assert given["Loader"] in SAFE_LOADERS
        if "trust_remote_code" in given:
            allowed = given["trust_remote_code"]
            assert allowed == "False" or allowed.endswith("trust_remote_code"), "only what the user asked for"
        if name == "AutoModelForCausalLM.from_pretrained":
            assert given.get("use_safetensors") == "True" or "gguf_file" in given


def test_durations_come_from_the_monotonic_clock() -> None:
    """The time of day may jump; it is written down once, where a run says when it began."""
    wall = {"time.time", "datetime.now", "datetime.utcnow", "datetime.today", "time.localtime"}
    found = {(file.name, name) for file in FILES for name, _ in calls(file) if name in wall}
    # the page compares with a file's own time, which another process set
    assert found == {("environment.py", "datetime.now"), ("liveness.py", "time.time")}


def test_nothing_imports_what_runs_answers() -> None:
    for file in FILES:
        assert "import confined" not in file.read_text(encoding="utf-8")
        assert "scoring.confined" not in file.read_text(encoding="utf-8")
