"""The final screen for every kind of outcome, as kept under ``screens``; LORASCOPE_WRITE_SCREENS=1 writes them anew."""

import io
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lorascope.analysis import summarize
from lorascope.cli.result import MOST_LINES, show_result
from lorascope.message import Message
from lorascope.records import EvalRecord, OutcomeState, SpectrumRecord, TrialOutcome, TruncationRecord
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from support.messages import verbatim
from support.solo_runs import solo_run

MakeStudy = Callable[..., Path]
SCREENS = Path(__file__).parent / "screens"
RANKS = (8, 128, 256)
EQUAL = dict.fromkeys(RANKS, 1.2)


def spec_of(*, ranks: tuple[int, ...] = RANKS, seeds: int = 1, **fields: Any) -> StudySpec:
    return StudySpec(ranks=ranks, seeds=tuple(range(seeds)), **fields)


def ending(state: OutcomeState, steps: int, why: Message) -> dict[str, Any]:
    """Rank 256 of a study of two seeds ends so."""
    names = ("r256", "r256-s1")
    outcomes = {name: TrialOutcome(trial_id=name, state=state, steps=steps, message=why) for name in names}
    return {"outcomes": outcomes, "done": dict.fromkeys(names, steps), "noise": 0.002}


HALFWAY = {f"r{rank}{seed}": 40 for rank in RANKS for seed in ("", "-s1")}
DIVERGED = ending("diverged", 37, Message("trial.exploded", step=38, loss=412.0))
OUT_OF_MEMORY = ending("oom", 0, Message("trial.oom", error=verbatim("CUDA out of memory")))
STUDIES: dict[str, dict[str, Any]] = {
    "clear": {"spec": spec_of(seeds=3), "noise": 0.002},
    "tie": {"spec": spec_of(seeds=3), "floors": EQUAL, "noise": 0.005},
    "undecided": {"spec": spec_of(seeds=2), "floors": EQUAL | {8: 1.23}, "noise": 0.08, "n_eval": 120},
    "one_seed": {"spec": spec_of(learning_rates=(1e-4, 3e-4)), "noise": 0.002},
    "too_early": {"spec": spec_of(), "steps": 16, "n_eval": 32},
    "one_rank": {"spec": spec_of(ranks=(8,), seeds=2), "floors": {8: 1.2}},
    "diverged": {"spec": spec_of(seeds=2), **DIVERGED},
    "out_of_memory": {"spec": spec_of(seeds=2), **OUT_OF_MEMORY},
    "interrupted": {"spec": spec_of(seeds=2), "done": HALFWAY},
    "many_ranks": {
        "spec": spec_of(ranks=tuple(2**n for n in range(10)), seeds=3),
        "floors": {2**n: 1.2 + 0.05 / 2**n for n in range(10)},
        "noise": 0.02,
    },
}


def screen(folder: Path, width: int = 80, *, color: bool = False) -> str:
    (folder / "report.html").touch()
    file = io.StringIO()
    terminal = Console(file=file, width=width, force_terminal=color, color_system="standard" if color else None)
    show_result(terminal, summarize(folder), folder)
    return file.getvalue()


def lines_of(folder: Path, width: int = 80) -> list[str]:
    return [line.rstrip() for line in screen(folder, width).splitlines()]


@pytest.fixture
def make_full(build_study: MakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeStudy:
    """Write a study into studies/full of the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("studies").mkdir()
    return lambda **fields: build_study(Path("studies/full"), **fields)


@pytest.mark.parametrize("name", STUDIES)
def test_final_screen(make_full: MakeStudy, name: str) -> None:
    lines, kept = lines_of(make_full(**STUDIES[name])), SCREENS / f"{name}.txt"
    text = "\n".join(lines) + "\n"
    if os.environ.get("LORASCOPE_WRITE_SCREENS"):
        kept.write_text(text, encoding="utf-8")
    assert text == kept.read_text(encoding="utf-8")
    assert len(lines) <= MOST_LINES
    assert all(len(line) <= 80 or " lorascope run " in line for line in lines)


@pytest.mark.parametrize(("name", "code"), [("clear", 32), ("tie", 34), ("undecided", 33), ("too_early", 33)])
def test_status_has_a_colour_of_its_own(
    make_full: MakeStudy, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    folder = make_full(**STUDIES[name])
    word = name.replace("_", " ").upper()
    assert f"\x1b[1;{code}m{word}" in screen(folder, color=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert f"\x1b[1m{word}" in screen(folder, color=True)


@pytest.mark.parametrize("width", [40, 60, 100, 140])
def test_table_fits_every_width(make_full: MakeStudy, width: int) -> None:
    lines = lines_of(make_full(**STUDIES["undecided"]), width)
    start = next(number for number, line in enumerate(lines) if line.startswith("rank  held-out"))
    assert all(len(line) <= width for line in lines[start : start + 6])
    assert "…" not in "".join(lines[start : start + 6])


def test_truncation_belongs_to_the_answer_with_its_command(make_full: MakeStudy) -> None:
    folder = make_full(spec=spec_of(seeds=2), floors={8: 1.4, 128: 1.3, 256: 1.2}, noise=0.002)
    with StudyStore.create(folder / "study.db") as store:
        (whole,) = (record for record in store.read(EvalRecord, trial_id="r256") if record.step == 80)
        store.put(SpectrumRecord(trial_id="r256", layer="layers.0.q_proj", singular_values=(1.0, 0.5)))
        store.put_all(
            [
                TruncationRecord(
                    trial_id="r256",
                    rank=rank,
                    example_nats=tuple(nats + excess for nats in whole.example_nats),
                    example_target_tokens=whole.example_target_tokens,
                    seconds=1.0,
                )
                for rank, excess in ((8, 4.0), (32, 0.01), (128, 0.0))
            ]
        )
    text = " ".join(screen(folder).split())
    assert "CLEAR Use rank 256: " in text
    assert "Train rank 256 and ship it truncated to rank 32: same loss, 1/8 the size." in text
    assert "To ship it lorascope export studies/full --rank 256 --truncate 32 --to full-r256-cut32" in text
    assert "the same truncated to rank 32" in text


def test_unsteady_times_are_marked_and_name_no_fastest_rank(make_full: MakeStudy) -> None:
    runs = [
        replace(solo_run(rank, repeat), step_seconds=(2.0, *[0.4 + repeat] * 3)) for repeat in (0, 1) for rank in RANKS
    ]
    lines = lines_of(make_full(spec=spec_of(seeds=3), noise=0.002, runs=runs))
    text = "\n".join(lines)
    assert "? Times are unreliable" in text
    assert all("?" in line for line in lines if line.lstrip().startswith(("8  ", "128  ", "256  ")))
    assert "Fastest          –  cannot tell from these times" in text
    assert "To time it  lorascope run studies/full --cost full" in lines


def test_dropped_rows_and_unusable_adapters_stand_on_top(make_full: MakeStudy) -> None:
    folder = make_full(spec=spec_of(seeds=3), noise=0.002)
    summary = summarize(folder)
    dropped = Message("dropped.rows", count=5398, rows=6681, split="train",
                      reasons=(Message("dropped.cut", tokens=64),))  # fmt: skip
    caution = type(summary.cautions[0])(kind="dropped_rows", text=(dropped,))
    file = io.StringIO()
    shown = summary.model_copy(update={"cautions": (caution, *summary.cautions)})
    show_result(Console(file=file, width=80), shown, Path("studies/full"))
    text = " ".join(file.getvalue().split("\n")[1:3])
    assert " ".join(text.split()) == (
        "WARNING Dropped 5,398 of 6,681 examples of train: no answer left within max_length 64."
    )
