"""A short version of fuzz.py: broken files are read or refused."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faults.fuzz import changed
from faults.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_fuzz_seeds_are_read_or_refused(name: str) -> None:
    for seed in TARGETS[name].seeds:
        TARGETS[name].read(seed)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(chance=st.randoms(use_true_random=False), data=st.binary(max_size=200))
def test_mutated_input_is_read_or_refused(name: str, chance: random.Random, data: bytes) -> None:
    TARGETS[name].read(data)
    TARGETS[name].read(changed(chance.choice(TARGETS[name].seeds), chance))
