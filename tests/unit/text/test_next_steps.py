"""The next command is complete, real, and accepted by the program."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorascope.analysis import StudySummary, summarize
from lorascope.analysis.cost.schema import ActivitySection
from lorascope.analysis.looks import LookSection
from lorascope.analysis.verdict.schema import RemedySection
from lorascope.cli.flags import given_fields, make_flags
from lorascope.message import Message
from lorascope.records import TrialOutcome
from lorascope.spec.load import find_study, load_spec
from lorascope.spec.schema import StudySpec
from lorascope.text.next_steps import next_steps, study_seconds

MakeStudy = Callable[..., Path]


def commands(summary: StudySummary, folder: Path) -> list[str]:
    return [step.command for step in next_steps(summary, folder)]


def spec_of_command(command: str) -> StudySpec:
    """Return the study that a command would run."""
    program, name, study, *rest = shlex.split(command)
    assert (program, name) == ("lorascope", "run")
    flags = {
        flag.removeprefix("--").replace("-", "_"): value for flag, value in zip(rest[::2], rest[1::2], strict=True)
    }
    flags.pop("out", None)
    return load_spec(find_study(study), given_fields(make_flags()(**flags)))


def underpowered(summary: StudySummary, code: str, **values: Any) -> StudySummary:
    remedy = RemedySection(text=Message(code, **values), seconds=None)
    return summary.model_copy(update={"verdict": summary.verdict.model_copy(update={"remedy": remedy})})


@pytest.fixture
def open_study(make_study: MakeStudy) -> Path:
    """Two seeds that cannot decide."""
    return make_study(spec=StudySpec(ranks=(8, 128), seeds=(0, 3)), floors={8: 1.204, 128: 1.2}, noise=0.06, n_eval=120)


def test_finished_study_that_is_clear_asks_for_nothing(make_study: MakeStudy) -> None:
    folder = make_study(spec=StudySpec(ranks=(8, 128), seeds=(0, 1, 2)), floors={8: 1.3, 128: 1.2}, noise=0.002)
    assert commands(summarize(folder), folder) == []


def test_undecided_study_of_one_seed_asks_for_three(make_study: MakeStudy) -> None:
    folder = make_study(spec=StudySpec(ranks=(8, 128), seeds=(7,)), floors={8: 1.3, 128: 1.2})
    (step,) = next_steps(summarize(folder), folder)
    assert spec_of_command(step.command).seeds == (7, 0, 1)
    assert "--out" not in step.command
    seconds = study_seconds(summarize(folder))
    assert seconds is not None
    assert step.note == f"adds to this study, about {10 * round(2 * seconds / 10)} s"


def test_seeds_or_rows_that_would_decide_are_taken_from_the_power_of_the_study(open_study: Path) -> None:
    summary = summarize(open_study)
    values = {"rank": 8, "half": 0.1, "tolerance": 0.005}
    more = underpowered(summary, "caution.underpowered_seeds", **values, seeds=2, more_seeds=5)
    assert spec_of_command(commands(more, open_study)[0]).seeds == (0, 3, 1, 2, 4)
    assert "--out" not in commands(more, open_study)[0]
    looked = more.model_copy(update={"looks": (LookSection.model_construct(rows=120, next="exhausted"),)})
    assert f"--out {open_study}-5-seeds" in commands(looked, open_study)[0]
    rows = underpowered(summary, "caution.underpowered_rows", **values, rows=900)
    assert spec_of_command(commands(rows, open_study)[0]).eval_examples == 900


def test_study_that_its_time_ended_asks_for_more_time(open_study: Path) -> None:
    """More seeds alone would have the same time, and so fewer steps each."""
    last = LookSection.model_construct(rows=120, next="budget", next_seconds=240.0)
    spent = ActivitySection(name="training", predicted_seconds=None, spent_seconds=480.0)
    summary = summarize(open_study).model_copy(update={"looks": (last,), "time_book": (spent,)})
    assert (
        commands(summary, open_study)[0] == f"lorascope run {open_study} --time-budget 15min --out {open_study}-15min"
    )


def test_study_that_no_seeds_would_decide_accepts_a_larger_tolerance(open_study: Path) -> None:
    summary = underpowered(
        summarize(open_study), "caution.underpowered_far", rank=8, half=0.1, tolerance=0.005, most=16, reach=0.05
    )
    (change,) = summary.recommendation.use.change
    accepted = change.values["tolerance"]
    assert isinstance(accepted, float)
    *command, tolerance = commands(summary, open_study)[0].split()
    assert command == ["lorascope", "report", str(open_study), "--tolerance"]
    assert accepted <= float(tolerance) <= 1.1 * accepted


def test_short_study_asks_for_more_steps_and_a_small_one_for_more_rows(make_study: MakeStudy) -> None:
    short = make_study(spec=StudySpec(ranks=(8, 128)), floors={8: 1.3, 128: 1.2}, steps=16)
    assert spec_of_command(commands(summarize(short), short)[0]).max_steps == 50


def test_few_held_out_rows_ask_for_more(make_study: MakeStudy) -> None:
    folder = make_study(spec=StudySpec(ranks=(8, 128)), floors={8: 1.3, 128: 1.2}, n_eval=9)
    assert spec_of_command(commands(summarize(folder), folder)[0]).eval_examples == 100


def test_one_rank_is_compared_with_others_around_it(make_study: MakeStudy) -> None:
    folder = make_study(spec=StudySpec(ranks=(8,)), floors={8: 1.3})
    assert spec_of_command(commands(summarize(folder), folder)[0]).ranks == (2, 8, 32)


def test_ranks_that_diverged_are_tried_at_lower_rates(make_study: MakeStudy) -> None:
    diverged = TrialOutcome(trial_id="r128", state="diverged", steps=10, message=None)
    spec = StudySpec(ranks=(8, 128), learning_rates=(1e-3,))
    folder = make_study(spec=spec, floors={8: 1.3, 128: 1.2}, done={"r128": 10}, outcomes={"r128": diverged})
    assert spec_of_command(commands(summarize(folder), folder)[0]).learning_rates == (1e-4, 1e-3)


def test_interrupted_study_is_continued_as_it_is(make_study: MakeStudy) -> None:
    folder = make_study(spec=StudySpec(ranks=(8, 128)), floors={8: 1.3, 128: 1.2}, done={"r8": 40, "r128": 40})
    (step,) = next_steps(summarize(folder), folder)
    assert step.command == f"lorascope run {folder}"
    assert spec_of_command(step.command) == load_spec(folder / "study.yaml", {})
    assert step.note == "continues from what is saved, about 20 s left"


def test_paths_with_blanks_are_quoted(make_study: MakeStudy) -> None:
    folder = make_study(spec=StudySpec(ranks=(8, 128)), floors={8: 1.3, 128: 1.2}, done={"r8": 40, "r128": 40})
    assert commands(summarize(folder), Path("my studies/one")) == ["lorascope run 'my studies/one'"]
