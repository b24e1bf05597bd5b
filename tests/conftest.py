"""Settings of all tests: no network, one thread."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# what finished studies teach about a machine belongs to no user here
os.environ["LORASCOPE_DATA"] = tempfile.mkdtemp(prefix="lorascope-tests-")

import pytest
import torch
from hypothesis import HealthCheck, settings

# Tiny products gain nothing from threads, and threads that wait for each other lose most on a busy machine
torch.set_num_threads(1)

# A busy machine is no reason for a property to fail
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The gate tries the same examples until the code changes; every other run tries new ones
settings.register_profile("repeatable", settings.get_profile("any machine"), derandomize=True)
settings.load_profile("any machine")


@pytest.fixture(params=["llama", "opt", "gpt2"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Debian's Chromium, driven by Playwright, which brings no browser of its own and can be started only once."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is missing: make test installs it")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("chromium is missing: make browser installs Debian's")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=quiet)
        yield browser
        browser.close()
