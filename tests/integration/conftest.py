"""Tiny models in folders, rows in a file, and studies of both."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from lorascope.costmodel import cpu_bench
from support.studies import KINDS, save_model_folder

QUESTIONS = ("add two numbers", "sort a list", "read a file", "reverse text", "count the words", "open a window")


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """One folder a kind of model, as save_pretrained leaves it."""
    root = tmp_path_factory.mktemp("models")
    for kind in KINDS:
        save_model_folder(root / kind, kind)
    return {kind: str(root / kind) for kind in KINDS}


@pytest.fixture(scope="session")
def rows() -> list[dict[str, str]]:
    """Forty rows, no two alike, of unequal length."""
    return [
        {"prompt": f"{QUESTIONS[n % 6]} {n}", "completion": f": the answer {n} is" + " so and so" * (n % 5)}
        for n in range(40)
    ]


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]) -> str:
    path = tmp_path_factory.mktemp("rows") / "rows.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def lorascope(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the program in this process; return exit code, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        from lorascope.cli import main

        capsys.readouterr()  # what making the study's parts wrote
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        assert isinstance(caught.value.code, int)
        return caught.value.code, *capsys.readouterr()

    return call


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled kernels, converted models and scripts of all tests, of all workers and of the programs they start."""
    root = tmp_path_factory.getbasetemp()
    return (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "cache"


@pytest.fixture(autouse=True)
def own_folders(shared_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's cache and calibrations out of tests, and time each operation of the cost model briefly."""
    monkeypatch.setenv("LORASCOPE_CACHE", str(shared_cache))
    monkeypatch.setenv("LORASCOPE_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(cpu_bench, "_REPEATS", (1, 2))
    monkeypatch.setattr(cpu_bench, "_POOL", 2**21)
    torch.set_num_threads(1)
