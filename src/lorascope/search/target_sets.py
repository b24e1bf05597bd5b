"""Sets of target modules of a study: their names, and the study of each set alone. Pure functions of the study."""

import re

from lorascope.errors import InputError
from lorascope.spec.fields.lora import Targets
from lorascope.spec.schema import StudySpec

_SAFE = re.compile(r"[\w.,-]{1,60}")
"""Names of sets are part of folder names."""


def studies_by_set(spec: StudySpec) -> dict[str, StudySpec]:
    """Return the study of each set alone, by the set's name; a single set has the empty name."""
    sets = spec.target_sets
    if len(sets) == 1:
        return {"": spec}
    return {
        _name(one, place): spec.model_copy(update={"target_modules": one}) for place, one in enumerate(sets, start=1)
    }


def find_set(spec: StudySpec, asked: str | None) -> str:
    """Return the name of the set that a user asks for, in any order of its names.

    Raises:
        InputError: there are several sets and none is asked for, or there is no such set.
    """
    names = list(studies_by_set(spec))
    known = names if len(names) > 1 else [_name(spec.target_sets[0], 1)]
    if asked is None and len(names) == 1:
        return names[0]
    found = next((name for name in known if asked and _parts(name) == _parts(asked)), None)
    if found is None:
        problem = "the study has several sets of target modules" if asked is None else f"the study has no set {asked}"
        raise InputError(problem, remedy=f"choose one with --target-modules: {' or '.join(known)}")
    return names[known.index(found)]


def _name(targets: Targets, place: int) -> str:
    """Return a set's name: its own words, or its place where these are no name for a folder."""
    if targets is None:
        return "q,k,v"
    shown = targets if isinstance(targets, str) else ",".join(targets)
    return shown if _SAFE.fullmatch(shown) else f"set{place}"


def _parts(name: str) -> set[str]:
    return set(name.split(","))
