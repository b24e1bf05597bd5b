from typing import Any

import pytest

from lorascope.errors import InputError
from lorascope.search.target_sets import find_set, studies_by_set
from lorascope.search.trials import plan_trials, planned_arms
from lorascope.spec.schema import StudySpec


def spec_of(*sets: Any) -> StudySpec:
    return StudySpec.model_validate({"ranks": (8, 4), "target_modules": sets if len(sets) > 1 else sets[0]})


def test_one_set_is_the_study_itself_without_a_name() -> None:
    for targets in ("all-linear", ("q_proj", "v_proj"), r".*\.q_proj", None):
        spec = spec_of(targets)
        assert studies_by_set(spec) == {"": spec}
        assert [trial.trial_id for trial in plan_trials(spec)] == ["r8", "r4"]


def test_sets_are_named_by_their_words_or_else_by_their_place() -> None:
    long = tuple(f"a_rather_long_name_{n}" for n in range(9))
    spec = spec_of(["q_proj", "v_proj"], "all-linear", r".*\.[qk]_proj", long)
    studies = studies_by_set(spec)
    assert list(studies) == ["q_proj,v_proj", "all-linear", "set3", "set4"]
    alone = [one.target_modules for one in studies.values()]
    assert alone == [("q_proj", "v_proj"), "all-linear", r".*\.[qk]_proj", long]
    assert planned_arms(spec)[:3] == (("q_proj,v_proj", 8), ("q_proj,v_proj", 4), ("all-linear", 8))
    assert plan_trials(spec)[2].trial_id == "r8-all-linear"


def test_a_list_of_sets_is_told_from_a_list_of_names() -> None:
    assert StudySpec(target_modules=("q_proj", "v_proj")).target_sets == (("q_proj", "v_proj"),)
    assert spec_of("all-linear", "q_proj").target_sets == ("all-linear", ("q_proj",))
    assert spec_of(["all-linear"], r".*q").target_sets == ("all-linear", r".*q")
    assert StudySpec.model_validate({"target_modules": [["q_proj", "v_proj"]]}).target_modules == ("q_proj", "v_proj")
    assert StudySpec.model_validate({"target_modules": ["all-linear"]}).target_modules == "all-linear"


def test_set_is_found_in_any_order_of_its_names() -> None:
    spec = spec_of(["q_proj", "v_proj"], "all-linear")
    assert find_set(spec, "v_proj,q_proj") == "q_proj,v_proj"
    assert find_set(spec, "all-linear") == "all-linear"
    for asked in (None, "q_proj"):
        with pytest.raises(InputError) as caught:
            find_set(spec, asked)
        assert caught.value.remedy == "choose one with --target-modules: q_proj,v_proj or all-linear"
    one = spec_of(["q_proj", "v_proj"])
    assert find_set(one, None) == find_set(one, "v_proj,q_proj") == ""
    with pytest.raises(InputError, match="no set all-linear"):
        find_set(one, "all-linear")
