"""The answer sheet of the reference study: every number that a course asks for, or that it was not measured."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lorascope.analysis import StudySummary, load_study, summarize, summarize_data
from lorascope.charts import fonts
from lorascope.charts.registry import make_charts
from lorascope.cli import main
from lorascope.records import BASE_MODEL, ForgettingRecord, GpuSample, PredictedThing, PredictionRecord, SpectrumRecord
from lorascope.report import write_report
from lorascope.report.assignment import assignment_text
from lorascope.report.templating import escape_markdown, make_environment
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from lorascope.text.language import language
from lorascope.text.numbers import format_seconds, interval
from lorascope.text.say import say
from lorascope.text.tables.table import Table
from lorascope.units import format_bytes
from support.korean import foreign, undecided
from support.solo_runs import solo_run

MakeStudy = Callable[..., Path]
SPEC = StudySpec(
    ranks=(8, 128, 256), alpha_rule="proportional", lora_dropout=0.1, split="train[:50%]", seeds=(0, 1, 2),
    per_device_train_batch_size=4, gradient_accumulation_steps=2, target_modules=("q_proj", "v_proj"),
)  # fmt: skip
HEADINGS = [
    "Environment", "Model and data set", "LoRA configuration", "Loss by rank", "Runtime by rank",
    "GPU memory allocated", "Process memory", "Time spent accessing memory", "Conclusions by need",
    "Pros and cons of LoRA", "Limits and method",
]  # fmt: skip


def sections(text: str) -> dict[str, str]:
    parts = re.split(r"^## \d+\. (.+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def row(text: str, rank: object) -> list[str]:
    """Cells of a rank's row in the first table."""
    [line, *_] = [line for line in text.splitlines() if line.startswith(f"| {rank} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def tables(text: str) -> list[list[str]]:
    lines = "\n".join(line if line.startswith("|") else "" for line in text.splitlines())
    return [block.splitlines() for block in re.split(r"\n\n+", lines.strip()) if block.strip()]


@pytest.fixture(scope="module")
def finished(build_study: MakeStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of three seeds with solo runs, a prediction of full fine-tuning, and other text."""
    folder = build_study(tmp_path_factory.mktemp("assignment") / "study", spec=SPEC)
    with StudyStore.create(folder / "study.db") as store:
        whats: list[tuple[PredictedThing, int, int]] = [
            ("full", 0, 10**9),
            *(("alone", rank, rank * 10**6) for rank in SPEC.ranks),
        ]
        store.put_all(
            [
                PredictionRecord(
                    what=what, rank=rank, device="A processor", tokens=200.0, step_seconds=1.0, factor=1.0,
                    step_flops=1e10, step_bytes=1e9, base_bytes=0, adapter_bytes=size, gradient_bytes=size,
                    optimizer_bytes=2 * size, activation_bytes=10**8, rest_bytes=10**8,
                )
                for what, rank, size in whats
            ]
        )  # fmt: skip
        for trial, more in ((BASE_MODEL, 0.0), ("r8", -1.0), ("r128", 0.5), ("r256", 5.0)):
            nats = tuple(20.0 + n + more for n in range(10))
            store.put(
                ForgettingRecord(
                    trial_id=trial, text="words.txt", text_hash="h", window_nats=nats, window_target_tokens=(10,) * 10,
                    seconds=1.0,
                )
            )  # fmt: skip
            if trial != BASE_MODEL:
                store.put(SpectrumRecord(trial_id=trial, layer="layers.0.q_proj", singular_values=(2.0, 1.0)))
    return folder


@pytest.fixture(scope="module")
def summary(finished: Path) -> StudySummary:
    return summarize(finished)


@pytest.fixture(scope="module")
def text(summary: StudySummary) -> str:
    return assignment_text(summary, {})


def test_sheet_has_the_parts_of_the_course_in_order(text: str, summary: StudySummary) -> None:
    found = sections(text)
    assert list(found) == HEADINGS
    assert all(len(part.split()) > 5 for part in found.values())
    assert say(summary.answer.text) in text.partition("## 1.")[0]
    assert "None\n" not in text
    assert "{" not in text


def test_sheet_says_what_was_trained_and_where(text: str) -> None:
    found = sections(text)
    for line in ("- processor: A processor, 2 cores, 2 threads used", "- memory: 8.00 GB", "- Python: 3.11.9"):
        assert line in found["Environment"]
    for line in (
        "- Model: made-up/model", "- Its parameters: 134.5 M, frozen, in float32", "- Seeds: 0, 1, 2",
        r"- Data set: made-up/rows, split train\[:50%\]", "- Rows: 320 for training, 200 held out and never trained on",
        "- Training steps: 80; rows per step: 8; epochs: 2", "- 3 rows were cut at 128 tokens.",
    ):  # fmt: skip
        assert line in found["Model and data set"]
    lora = found["LoRA configuration"]
    assert "- Dropout: 0.1" in lora
    assert r"- Target modules: q\_proj, v\_proj (2 layers)" in lora
    assert row(lora, 128) == ["512", "4", "6,400,000", "4.76%", "25.6 MB", "102.4 MB"]


def test_losses_and_their_gains_have_intervals(text: str, summary: StudySummary) -> None:
    loss = sections(text)["Loss by rank"]
    for part, reading in zip(summary.ranks, summary.readings.ranks, strict=True):
        settled, final, gap, spread, held_out, above = row(loss, part.rank)
        assert settled == f"{reading.stable_step} of 80"
        assert (final, gap) == (f"{part.train_loss:.4f}", f"{reading.train_gap:.4f}")
        assert (spread, held_out) == (f"{reading.final_spread:.4f}", f"{part.eval_loss:.4f}")
        assert above == "lowest" or re.fullmatch(r"\+[\d.]+ \(\S+ to \S+\)", above)
    first, second = summary.readings.doublings
    assert f"- From rank 8 to 128 the held-out loss falls by {interval(first.gain, *first.gain_ci95)}, by " in loss
    assert f"- From rank 128 to 256 no gain is shown: {interval(second.gain, *second.gain_ci95)}." in loss
    assert "With one seed" not in loss
    assert escape_markdown(say(summary.verdict.text)) in loss


def test_costs_of_each_rank_on_a_processor(text: str, summary: StudySummary) -> None:
    found = sections(text)
    part = summary.ranks[0]
    assert row(found["Runtime by rank"], 8)[:2] == [
        format_seconds(part.step_seconds), format_seconds(part.runtime_seconds)
    ]  # fmt: skip
    assert found["GPU memory allocated"].strip().startswith("None: the study ran on a processor.")
    memory = part.memory
    sizes = [f"{value:,.1f}" for value in (memory.mean, memory.std, memory.min, memory.max)]
    assert row(found["Process memory"], 8) == [*sizes, "none"]
    assert "None: a processor has no counter of this time." in found["Time spent accessing memory"]


def test_conclusions_say_their_reason_and_how_sure_they_are(text: str, summary: StudySummary) -> None:
    conclusions = sections(text)["Conclusions by need"]
    assert f"- Best quality: rank {summary.recommendation.loss.rank}. " in conclusions
    enough = "The smallest rank shown to be within 0.005 nats a token of the lowest loss"
    assert f"- Efficient: rank 128. {enough}" in conclusions
    assert "1/2 the size of rank 256. Loss within 0.005 of the lowest: proven." in conclusions
    scarce = re.search(r"- Scarce memory: rank 8\. (.*)", conclusions)[1]
    assert scarce.startswith("Its adapter, gradient and optimizer take 6.4 MB, ")
    assert "MB less than rank 256. Loss within 0.005 of the lowest: unlikely, 0%." in scarce


def test_largest_rank_is_named_without_a_size_of_its_own(make_study: MakeStudy) -> None:
    floors = {8: 1.3, 128: 1.25, 256: 1.2}
    conclusions = sections(assignment_text(summarize(make_study(spec=SPEC, floors=floors)), {}))["Conclusions by need"]
    efficient = re.search(r"- Efficient: rank 256\. (.*)", conclusions)[1]
    assert efficient.count(";") == 0
    assert re.search(r"- Scarce memory: rank 8\. .*; 248\.0 MB less than rank 256\.", conclusions)


def test_pros_and_cons_have_numbers_of_the_study(text: str, summary: StudySummary) -> None:
    pros, _, cons = sections(text)["Pros and cons of LoRA"].partition("Cons, in numbers of this study:")
    assert "A copy of the whole model takes 538.1 MB; the adapter of rank 8 takes 1.6 MB, 0.30% of that." in pros
    peak = format_bytes(summary.ranks[0].peak_memory_bytes)
    assert f"is 4.20 GB for full fine-tuning and 232.0 MB at rank 8, where {peak} was measured." in pros
    assert "No forgetting is shown in the loss on other text: rank 8 by -" in pros
    assert "The loss on other text rose, which is forgetting: rank 128 by 0.05" in cons
    reading = summary.readings.ranks[0]
    excess = interval(reading.excess_over_largest, *reading.excess_over_largest_ci95)
    assert f"A low rank costs quality: the held-out loss of rank 8 minus that of rank 256 is {excess}." in cons
    assert "From rank 8 to 256: parameters from 400.0 k to 12.8 M, adapter from 1.6 MB to 51.2 MB, peak memory" in cons


def test_sheet_without_solo_runs_says_that_they_were_left_out(make_study: MakeStudy) -> None:
    found = sections(assignment_text(summarize(make_study(spec=SPEC, runs=[])), {}))
    left_out = "Not measured: this study left out the solo runs"
    assert found["Runtime by rank"].strip().startswith(left_out)
    assert "All trials together trained for" in found["Runtime by rank"]
    assert tables(found["Runtime by rank"]) == []
    assert left_out in found["Process memory"]
    assert found["Time spent accessing memory"].strip() == "None: a processor has no counter of this time."
    assert "Time and memory of each rank by itself were not measured" in found["Limits and method"]
    assert "Forgetting was not measured" in found["Limits and method"]
    assert "peak memory" not in found["Pros and cons of LoRA"]
    assert row(found["LoRA configuration"], 8)[-2:] == ["1.6 MB", "6.4 MB"]


def test_one_seed_proves_nothing(make_study: MakeStudy) -> None:
    found = sections(assignment_text(summarize(make_study()), {}))
    for part in ("Loss by rank", "Pros and cons of LoRA"):
        assert "With one seed, in that seed only." in found[part]
    assert re.findall(r"of the lowest: (.*)\.$", found["Conclusions by need"], re.MULTILINE) == ["unproven"] * 3


@pytest.mark.parametrize("done", [0, 45])
def test_unfinished_study_has_a_sheet(make_study: MakeStudy, done: int) -> None:
    text = assignment_text(summarize(make_study(done={"r8": done, "r128": done, "r256": done})), {})
    assert text.split("\n", 3)[2].startswith("**Too early**" if done else "**")
    assert list(sections(text)) == HEADINGS


def on_gpu(make_study: MakeStudy) -> tuple[StudySummary, Path]:
    runs = [
        replace(solo_run(rank, repeat), memory_method="allocator", reserved_peak_bytes=2 * 10**9)
        for repeat in (0, 1)
        for rank in SPEC.ranks
    ]
    folder = make_study(spec=SPEC, runs=runs)
    with StudyStore.create(folder / "study.db") as store:
        store.put_all(
            [
                GpuSample(
                    seconds=0.1, rank=rank, uuid="GPU-1", name="A GPU", memory_used_bytes=10**9 * 3,
                    memory_total_bytes=8 * 10**9, utilization_percent=90, memory_utilization_percent=40 + rank // 100,
                    power_watts=None, sm_clock_mhz=None, memory_clock_mhz=None, temperature_celsius=None,
                    throttle_reasons=0,
                )
                for rank in SPEC.ranks
            ]
        )  # fmt: skip
    data = load_study(folder)
    return summarize_data(replace(data, resolved=replace(data.resolved, device="cuda"))), folder


def test_costs_of_each_rank_on_a_gpu(make_study: MakeStudy) -> None:
    summary, _ = on_gpu(make_study)
    found = sections(assignment_text(summary, {}))
    allocated = found["GPU memory allocated"]
    assert row(allocated, 128) == ["1.10 GB", "1.13 GB", "2.00 GB", "3.00 GB", "3.00 GB", "37.5%"]
    assert len(tables(allocated)) == 2
    assert found["Process memory"].strip() == "Not measured."
    assert row(found["Time spent accessing memory"], 256) == ["42.0%", "90.0%", "1"]
    assert "processor" not in found["Time spent accessing memory"]


@pytest.mark.parametrize("gpu", [False, True])
def test_korean_sheet_has_no_english_sentence_left(make_study: MakeStudy, finished: Path, gpu: bool) -> None:
    with language("ko"):
        summary = on_gpu(make_study)[0] if gpu else summarize(finished)
        text = assignment_text(summary, {})
    bare = re.sub(
        r"```.*?```|made-up/\w+|A processor|3 rows were cut at 128 tokens\.|abc1234", "", text, flags=re.DOTALL
    )
    names = {
        "lorascope", "Python", "Linux", "transformers", "UTC", "train", "q_proj", "v_proj", "NVIDIA", "Torch", "words",
        "txt",
    }  # fmt: skip
    assert foreign(bare.replace("\\", "")) - names == set()
    assert not undecided(text)
    assert len(re.findall(r"^## \d+\. ", text, re.MULTILINE)) == len(HEADINGS)


def test_tables_and_names_keep_their_place_in_markdown(make_study: MakeStudy) -> None:
    hostile = "evil/<script>alert(1)</script>|`*x*`[y](z)"
    folder = make_study(model=hostile)
    text = assignment_text(summarize(folder), {})
    assert "<script>" not in text
    assert f"- Model: {escape_markdown(hostile)}\n" in text
    assert len(tables(text)) >= 4
    for head, rule, *rows in tables(text):
        assert re.fullmatch(r"\| --- \|( --: \|)+", rule)
        assert rows
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in (head, rule, *rows)} == {head.count("|")}


def test_pipes_in_cells_are_escaped() -> None:
    content = Table(header=("rank", "a|b"), rows=(("8", "c|d"),), ranks=(8,))
    template = '{% from "macros.md.j2" import table with context %}{{ table(content) }}'
    shown = make_environment().from_string(template).render(content=content, ending="")
    assert [line for line in shown.splitlines() if line] == ["| rank | a\\|b |", "| --- | --: |", "| 8 | c\\|d |"]


def test_sheet_is_written_where_it_is_asked_for(
    make_study: MakeStudy, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_study()
    assert write_report(folder).assignment is None
    assert not list(folder.glob("assignment*"))
    with pytest.raises(SystemExit) as ended:
        main(["report", str(folder), "--format", "assignment"])
    assert ended.value.code == 0
    sheet = folder / "assignment.md"
    assert capsys.readouterr().out.strip() == str(sheet)
    text = sheet.read_text(encoding="utf-8")
    pictures = re.findall(r"^!\[.+\]\((.+)\)$", text, re.MULTILINE)
    assert {"charts/train_loss.png", "charts/runtime.png", "charts/memory_alone.png"} <= set(pictures)
    assert all((folder / name).is_file() for name in pictures)
    monkeypatch.setattr(fonts, "has_letters", lambda _: True)
    korean = write_report(folder, lang="ko", assignment=True).assignment
    assert korean == folder / "assignment.ko.md"
    assert "](charts/train_loss.ko.png)" in korean.read_text(encoding="utf-8")
    assert sheet.read_text(encoding="utf-8") == text
    data = load_study(folder)
    assert text == assignment_text(summarize_data(data), make_charts(data, summarize_data(data)))
