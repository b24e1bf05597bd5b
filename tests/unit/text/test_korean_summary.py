"""A Korean summary has the same numbers, no English words and no undecided particles."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lorascope.analysis import StudySummary, load_study, summarize, summarize_data
from lorascope.message import Message
from lorascope.records import OutcomeState, TrialOutcome
from lorascope.spec.schema import StudySpec
from lorascope.text.language import language
from lorascope.text.say import say
from support.korean import foreign, undecided

MakeStudy = Callable[..., Path]
TWO = {8: 1.3, 128: 1.2}


def told(summary: StudySummary) -> Iterator[str]:
    yield say(summary.verdict.text)
    for advice in summary.recommendation.__dict__.values():
        yield from (say(advice.reason), say(advice.change))
    yield from (say(caution.text) for caution in summary.cautions)
    readings = summary.readings
    yield from map(say, (readings.alpha, readings.naive.text, readings.knee_text, readings.balance))


STUDIES: dict[str, dict[str, Any]] = {
    "adequate": {},
    "no costs": {"costs": False},
    "equal": {"floors": {8: 1.2, 128: 1.2}, "noise": 0.001},
    "unsettled": {"floors": {8: 1.2, 128: 1.2, 256: 1.2}, "noise": 0.2},
    "several seeds": {"spec": StudySpec(ranks=(8, 128), seeds=(0, 1, 2)), "floors": TWO},
    "grid": {"spec": StudySpec(ranks=(8, 128), learning_rates=(1e-4, 3e-4), seeds=(0, 1)), "floors": TWO},
    "rslora": {"spec": StudySpec(ranks=(8, 128), alpha_rule="rslora"), "floors": TWO},
    "proportional": {"spec": StudySpec(ranks=(8, 128), alpha_rule="proportional"), "floors": TWO},
    "own alphas": {"spec": StudySpec(ranks=(8, 128), lora_alpha={8: 16.0, 128: 64.0}), "floors": TWO},
    "limits": {"spec": StudySpec(ranks=(8, 128), max_memory="1.1GB", max_seconds=40), "floors": TWO},
    "limits nobody keeps": {"spec": StudySpec(ranks=(8, 128), max_adapter_mb=1), "floors": TWO, "costs": False},
    "small": {"steps": 10, "n_eval": 12},
    "one row": {"n_eval": 1},
    "not begun": {"done": {"r8": 0, "r128": 0, "r256": 0}},
    "interrupted": {"done": {"r8": 45, "r128": 45, "r256": 45}},
    "one behind": {"done": {"r256": 45}},
    "one rank": {"floors": {8: 1.2}},
}


@pytest.mark.parametrize("name", STUDIES)
def test_korean_sentences_have_the_numbers_of_the_english_ones(make_study: MakeStudy, name: str) -> None:
    summary = summarize(make_study(**STUDIES[name]))
    with language("ko"):
        texts = list(told(summary))
    for text, original in zip(texts, told(summary), strict=True):
        assert foreign(text) == set(), text
        assert not undecided(text), text
        assert (text == "") == (original == "")


def test_korean_summary_has_the_same_numbers(make_study: MakeStudy) -> None:
    folder = make_study()
    summary = summarize(folder)
    with language("ko"):
        texts = list(told(summary))
        assert summarize(folder) == summary
    for text, original in zip(texts, told(summary), strict=True):
        losses = [re.findall(r"\d\.\d{4}", one) for one in (text, original)]
        assert sorted(losses[0]) == sorted(losses[1])


def test_korean_messages_of_trials_that_ended_early(make_study: MakeStudy) -> None:
    ends: dict[str, OutcomeState] = {"r8": "diverged", "r128": "oom"}
    outcomes = {
        name: TrialOutcome(trial_id=name, state=state, steps=40, message=Message("trial.gradient_not_finite", step=41))
        for name, state in ends.items()
    }
    data = load_study(make_study(done=dict.fromkeys(ends, 40), outcomes=outcomes))
    with language("ko"):
        summary = summarize_data(data)
        text = next(say(caution.text) for caution in summary.cautions if caution.kind == "ended_early")
        assert "r8 40스텝 후 발산; r128 40스텝 후 메모리 부족(OOM)" in text
        assert say(summary.trials[0].message) == "41번째 스텝의 그래디언트가 유한하지 않음"
