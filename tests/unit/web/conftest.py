"""A made-up study of the page."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lorascope.records import ResolvedStudy
from lorascope.store import StudyStore


@pytest.fixture
def resolved(make_study: Callable[..., Path]) -> ResolvedStudy:
    """Of a study of 100 steps."""
    with StudyStore.open(make_study(steps=100) / "study.db") as store:
        found = store.read_one(ResolvedStudy)
    assert found is not None
    return found
