"""Studies that look at their data and go on while the verdict is open, from the first step to the report."""

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lorascope.analysis import summarize
from lorascope.analysis.study_data import load_study
from lorascope.analysis.verdict.next_look import next_look
from lorascope.charts.registry import make_charts
from lorascope.errors import Interrupted
from lorascope.records import BASE_MODEL, GOES_ON, FurtherEvalRecord, LookRecord
from lorascope.run import looks
from lorascope.run.context import RunContext
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from support.studies import execute, read_study, study_of

Lorascope = Callable[..., tuple[int, str, str]]
HELD, MORE = 4, 7
SCRIPT: tuple[dict[str, Any], ...] = (
    {"next": "rows", "next_value": MORE, "next_ranks": (2, 4)},
    {"next": "seed", "next_value": 3, "next_ranks": (2, 4)},
    {"next": "exhausted", "next_value": 0},
)
"""What follows each look, whatever the losses are."""


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    def script(*given: Any, **options: Any) -> LookRecord:
        look = next_look(*given, **options)
        is_over = options["seconds_left"] < 0
        return replace(look, **SCRIPT[look.look - 1]) if look.ranks and not is_over else look

    monkeypatch.setattr(looks, "next_look", script)


@pytest.fixture
def spec(model_folders: Mapping[str, str], rows_file: str) -> StudySpec:
    return study_of(model_folders["llama"], rows_file, until_decided=True, eval_examples=HELD, max_steps=2)


def further(folder: Path) -> dict[str, list[FurtherEvalRecord]]:
    with StudyStore.open(folder / "study.db") as store:
        found: dict[str, list[FurtherEvalRecord]] = {}
        for record in store.read(FurtherEvalRecord):
            found.setdefault(record.trial_id, []).append(replace(record, seconds=0.0))
    return found


def test_a_study_adds_the_rows_and_seeds_that_its_looks_ask_for(spec: StudySpec, tmp_path: Path) -> None:
    execute(spec, tmp_path / "study")
    data = load_study(tmp_path / "study")
    assert [look.next for look in data.looks] == ["rows", "seed", "exhausted"]
    assert [(look.seeds, look.rows) for look in data.looks] == [
        ((0, 1, 2), HELD),
        ((0, 1, 2), MORE),
        ((0, 1, 2, 3), MORE),
    ]
    names = [f"r{rank}{seed}" for rank in (2, 4) for seed in ("", "-s1", "-s2", "-s3")]
    assert sorted(data.outcomes) == names
    found = further(tmp_path / "study")
    assert sorted(found) == [BASE_MODEL, *names]
    assert all([record.first_row for record in records] == [HELD] for records in found.values())
    summary = summarize(tmp_path / "study")
    assert summary.verdict.seeds == 4
    assert [part.seeds for part in summary.ranks] == [4, 4]


def test_further_rows_have_the_losses_that_training_would_have_seen(spec: StudySpec, tmp_path: Path) -> None:
    """The same study, evaluated on all rows that it holds out in training already."""
    execute(spec, tmp_path / "study")
    resolved = load_study(tmp_path / "study").resolved
    assert resolved is not None
    whole = spec.model_copy(update={"eval_examples": resolved.train_examples // 4, "until_decided": False})
    execute(whole.model_copy(update={"seeds": (0, 1)}), tmp_path / "whole")
    left, right = load_study(tmp_path / "study"), load_study(tmp_path / "whole")
    assert right.resolved is not None
    assert right.resolved.train_examples == resolved.train_examples
    for name in ("r2", "r4-s1"):
        own = (*left.evaluations[name][-1].example_nats, *further(tmp_path / "study")[name][0].example_nats)
        assert len(own) == MORE
        theirs = right.evaluations[name][-1].example_nats
        assert all(any(nats == pytest.approx(other, rel=1e-5) for other in theirs) for nats in own)


def test_the_base_is_compared_on_the_rows_of_the_ranks(spec: StudySpec, tmp_path: Path) -> None:
    execute(spec, tmp_path / "study")
    data, summary = load_study(tmp_path / "study"), summarize(tmp_path / "study")
    assert data.resolved is not None
    whole = spec.model_copy(update={"eval_examples": data.resolved.train_examples // 4, "until_decided": False})
    execute(whole, tmp_path / "whole")
    first, more = data.evaluations["r2"][0], further(tmp_path / "study")[BASE_MODEL][0]
    nats = (*first.example_nats, *more.example_nats)
    assert len(nats) == summary.compared_rows == MORE
    theirs = load_study(tmp_path / "whole").evaluations["r2"][0].example_nats
    assert all(any(one == pytest.approx(other, rel=1e-5) for other in theirs) for one in nats)
    loss = sum(nats) / sum((*first.example_target_tokens, *more.example_target_tokens))
    assert summary.base_eval_loss == pytest.approx(loss)
    assert summary.base_eval_loss != pytest.approx(first.loss)
    for part, reading in zip(summary.ranks, summary.readings.ranks, strict=True):
        assert reading.loss_gained == pytest.approx(loss - part.eval_loss)
    found = make_charts(data, summary)["eval_loss"]
    assert f"first {HELD} of the {MORE} held-out examples" in found.caption


@pytest.mark.parametrize("look", [1, 2, 3])
def test_a_study_stopped_at_a_look_goes_on_as_it_would_have(spec: StudySpec, tmp_path: Path, look: int) -> None:
    execute(spec, tmp_path / "undisturbed")

    def stop(text: str) -> None:
        if text.startswith(f"Look {look}"):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        execute(spec, tmp_path / "study", at_note=stop)
    execute(spec, tmp_path / "study")
    assert read_study(tmp_path / "study") == read_study(tmp_path / "undisturbed")
    assert further(tmp_path / "study") == further(tmp_path / "undisturbed")
    taken = [
        [replace(found, next_seconds=0.0) for found in load_study(tmp_path / name).looks]
        for name in ("study", "undisturbed")
    ]
    assert taken[0] == taken[1]


@pytest.mark.parametrize(
    ("evaluated", "looks", "seeds"),
    [(0, 1, 3), (2, 1, 3), (6, 2, 4)],
)
def test_rows_for_which_the_time_does_not_suffice_leave_the_last_look(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evaluated: int, looks: int, seeds: int
) -> None:
    """What was evaluated stays: adapters of the first look's rows, or all of them before the further seed's."""
    left = iter(range(evaluated))
    monkeypatch.setattr(
        RunContext, "allows", lambda self, activity, work: activity != "further_rows" or next(left, None) is not None
    )
    execute(spec, tmp_path / "study")
    data, summary = load_study(tmp_path / "study"), summarize(tmp_path / "study")
    assert len(data.looks) == looks
    assert data.looks[-1].next not in GOES_ON
    assert data.looks[-1].rows == (HELD, MORE)[looks - 1]
    assert len({trial.seed for trial in data.trials}) == seeds
    assert len(further(tmp_path / "study")) == evaluated
    assert summary.study.seeds == (0, 1, 2)
    assert summary.verdict.seeds == 3
    assert summary.study.complete
    assert "this study is complete; nothing was trained" in execute(spec, tmp_path / "study").notes


def test_a_finished_study_trains_nothing_again(spec: StudySpec, tmp_path: Path) -> None:
    execute(spec, tmp_path / "study")
    again = execute(spec, tmp_path / "study")
    assert "this study is complete; nothing was trained" in again.notes
    assert again.steps == []


def test_a_rank_without_a_loss_has_no_part_in_a_look(spec: StudySpec, tmp_path: Path) -> None:
    """With one rank left there is nothing to look at; the study ends."""
    lost = spec.model_copy(update={"ranks": (2, 4), "learning_rates": (1e30,)})
    execute(lost, tmp_path / "study")
    data = load_study(tmp_path / "study")
    assert data.looks == ()
    assert {outcome.state for outcome in data.outcomes.values()} == {"diverged"}
    assert execute(lost, tmp_path / "study").steps == []


def test_one_rank_has_nothing_to_decide(lorascope: Lorascope, rows_file: str, tmp_path: Path) -> None:
    code, _, error = lorascope(
        "run", "--dataset", rows_file, "--ranks", "8", "--until-decided", "--out", tmp_path / "study"
    )
    assert code == 2
    assert "one rank (8)" in error
    assert not (tmp_path / "study").exists()
