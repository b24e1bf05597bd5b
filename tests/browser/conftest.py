"""Visits in a browser, real studies to train, and made-up studies to show."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import long_studies
from lorascope.spec.load import dump_spec
from lorascope.spec.schema import StudySpec
from support.browser import WAIT_SECONDS, Visit, address_in, program
from support.studies import save_model_folder, study_of

TOTAL_STEPS = 80


@pytest.fixture
def visit(chromium: Any) -> Iterator[Callable[..., Visit]]:
    """Open an address in a fresh context of the browser."""
    contexts = []

    def open_page(address: str, **options: Any) -> Visit:
        context = chromium.new_context(**options)
        context.set_default_timeout(1000 * WAIT_SECONDS)
        contexts.append(context)
        visitor = Visit(context.new_page())
        visitor.page.on("console", lambda said: visitor.errors.append(said.text) if said.type != "info" else None)
        visitor.page.on("pageerror", lambda error: visitor.errors.append(str(error)))
        visitor.page.on("request", lambda request: visitor.asked.add(re.split("[/:]+", request.url)[1]))
        visitor.page.goto(address)
        return visitor

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def study_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a study of a tiny model, ready to be run."""
    root = tmp_path_factory.mktemp("parts")
    save_model_folder(root / "llama", "llama")
    rows = [{"prompt": f"add numbers {n}", "completion": f": the answer is {n}" + " so" * (n % 5)} for n in range(40)]
    (root / "rows.json").write_text(json.dumps(rows), encoding="utf-8")

    def write(**changes: Any) -> Path:
        path = root / "my.yaml"
        path.write_text(dump_spec(study_of(str(root / "llama"), str(root / "rows.json"), **changes)), encoding="utf-8")
        return path

    return write


@pytest.fixture
def growing(tmp_path: Path) -> Path:
    """A made-up study of three trials that have done 40 of 80 steps."""
    long_studies.write(tmp_path / "study", StudySpec(ranks=(8, 128, 256)), total_steps=TOTAL_STEPS, done=40)
    return tmp_path / "study"


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a page that shows two made-up studies, one of them with several learning rates and seeds."""
    root = tmp_path_factory.mktemp("served")
    long_studies.write(root / "first", StudySpec(ranks=(8, 128, 256)), total_steps=TOTAL_STEPS, done=40)
    several = StudySpec(ranks=(4, 16), learning_rates=(1e-3, 3e-3), seeds=(0, 1))
    long_studies.write(root / "second", several, total_steps=TOTAL_STEPS, done=TOTAL_STEPS)
    with program("serve", root, "--port", 0) as server:
        yield address_in(server)
