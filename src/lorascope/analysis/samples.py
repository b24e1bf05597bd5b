"""Answers of the base and of each rank to the same held-out prompts, put side by side."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from lorascope.analysis.study_data import StudyData
from lorascope.records import BASE_MODEL, Arm, SampleAnswer, SamplePrompt
from lorascope.search.best import best_settings, latest_losses, representative_trials


@dataclass(frozen=True, kw_only=True, slots=True)
class RankAnswer:
    """The answer of the base or of a rank."""

    arm: Arm | None
    """Set of target modules and rank; None for the base."""
    answer: SampleAnswer


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedAnswers:
    """A held-out prompt and all answers to it."""

    prompt: SamplePrompt
    answers: tuple[RankAnswer, ...]
    """That of the base first, then ranks ascending."""


def compare_answers(data: StudyData) -> tuple[ComparedAnswers, ...]:
    """Put the answers to each prompt side by side, those of the study's last settings; prompts without any left out."""
    settings = (data.spec.max_new_tokens, data.spec.sample_temperature)
    found = {
        (one.place, one.trial_id): one
        for one in data.answers
        if one.error is None and (one.max_new_tokens, one.temperature) == settings
    }
    answering = {trial_id for _, trial_id in found}
    trials = [trial for part in (data, *data.others) for trial in part.trials]
    best = best_settings(trials, latest_losses(data.outcomes, data.evaluations))
    standing = representative_trials(trials, best, answering.__contains__)
    arms: list[tuple[Arm | None, str]] = [(None, BASE_MODEL), *standing.items()]
    compared = (
        ComparedAnswers(
            prompt=prompt,
            answers=tuple(
                RankAnswer(arm=arm, answer=found[prompt.place, trial_id])
                for arm, trial_id in arms
                if (prompt.place, trial_id) in found
            ),
        )
        for prompt in data.prompts
        if prompt.place <= data.spec.samples
    )
    return tuple(one for one in compared if one.answers)


def answers_jsonl(compared: Iterable[ComparedAnswers]) -> str:
    """Write one JSON object a line for each prompt, with its answers."""
    return "".join(json.dumps(_plain(one), ensure_ascii=False) + "\n" for one in compared)


def _plain(compared: ComparedAnswers) -> dict[str, object]:
    prompt = compared.prompt
    return {
        "row": prompt.row,
        "prompt": prompt.prompt,
        "truth": prompt.truth,
        "answers": [
            {
                "targets": one.arm[0] if one.arm else None,
                "rank": one.arm[1] if one.arm else 0,
                "trial_id": one.answer.trial_id,
                "text": one.answer.text,
                "tokens": one.answer.tokens,
                "ended": one.answer.ended,
                "max_new_tokens": one.answer.max_new_tokens,
                "temperature": one.answer.temperature,
            }
            for one in compared.answers
        ],
    }
