"""Steps that a time budget buys: a pure function of the study, its sizes and the work that fits."""

from dataclasses import replace

from lorascope.search.sequential import FIRST_SEEDS, sequential_seeds
from lorascope.search.work import Sizes, planned_work
from lorascope.spec.schema import StudySpec

FEWEST_STEPS = {FIRST_SEEDS: 40, 2: 30, 1: 1}
"""Steps that each trial has to have before so many seeds are worth more than further steps."""


def choose_steps(spec: StudySpec, sizes: Sizes, *, work: float) -> int:
    """Return how many steps each trial takes, so that training and evaluations are at most this work; 0 where not one.

    A sequential study has three seeds where each has steps enough, else two or one.

    Args:
        spec: the study.
        sizes: of its parts; ``total_steps`` are those of the epochs that it asks for.
        work: what may be done, in tokens that go forward through the base.
    """
    if not spec.until_decided:
        return _most_steps(spec, sizes, len(spec.seeds), work)
    found = {seeds: _most_steps(spec, sizes, seeds, work) for seeds in FEWEST_STEPS}
    enough = (steps for seeds, steps in found.items() if steps >= min(sizes.total_steps, FEWEST_STEPS[seeds]))
    return next(enough, 0)


def training_cost(spec: StudySpec, sizes: Sizes, *, steps: int, seeds: int) -> float:
    """Return the work of training so many seeds and of their evaluations."""
    fixed = spec.model_copy(update={"until_decided": False, "seeds": sequential_seeds(spec)[:seeds]})
    work = planned_work(fixed, replace(sizes, total_steps=steps))
    return work["training"] + work["evaluation"]


def _most_steps(spec: StudySpec, sizes: Sizes, seeds: int, work: float) -> int:
    """Return the most steps whose work fits, by bisection."""
    low, high = 0, sizes.total_steps
    while low < high:
        middle = (low + high + 1) // 2
        fits = training_cost(spec, sizes, steps=middle, seeds=seeds) <= work
        low, high = (middle, high) if fits else (low, middle - 1)
    return low
