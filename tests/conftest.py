"""What holds for every test: no network, one thread, small things."""

import os
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# what finished studies teach about a machine belongs to no user here
os.environ["LORASCOPE_DATA"] = tempfile.mkdtemp(prefix="lorascope-tests-")

import pytest
import torch
from hypothesis import settings

# Tiny products gain nothing from threads, and threads that wait for each other lose most on a busy machine
torch.set_num_threads(1)

# A busy machine is no reason for a property to fail
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture(params=["llama", "opt", "gpt2"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)
