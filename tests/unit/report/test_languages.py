"""A report in another language: next to the English one, translated, with the same summary.json."""

import base64
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from fontTools.ttLib import TTFont

from lorascope.analysis import load_study, summarize_data
from lorascope.charts import fonts
from lorascope.charts.registry import make_charts
from lorascope.errors import InputError
from lorascope.message import Message
from lorascope.records import (
    BASE_MODEL,
    EvalRecord,
    ForgettingRecord,
    GpuSample,
    MachineRates,
    PredictionRecord,
    SoloRun,
    SpectrumRecord,
    SystemSample,
    TrialOutcome,
    TruncationRecord,
)
from lorascope.report import write_report
from lorascope.report.write import render
from lorascope.spec.fields.answer import BUILTIN_TEXT
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from lorascope.text.language import current_language, language
from support.korean import foreign, undecided
from support.messages import ASKED

What = Literal["alone", "joint", "full"]
MakeStudy = Callable[..., Path]


@pytest.fixture(autouse=True)
def any_font(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written does not depend on the fonts of the machine; how it is drawn is tested with the charts."""
    monkeypatch.setattr(fonts, "has_letters", lambda _: True)


def test_korean_report_is_written_next_to_the_english_one(make_study: MakeStudy) -> None:
    folder = make_study()
    english = write_report(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    korean = write_report(folder, lang="ko")
    assert (korean.report_html.name, korean.report_md.name) == ("report.ko.html", "report.ko.md")
    assert [path.name for path in korean.charts] == [path.name.replace(".png", ".ko.png") for path in english.charts]
    assert {path: path.read_bytes() for path in before} == before
    assert korean.summary_json == english.summary_json
    html = korean.report_html.read_text(encoding="utf-8")
    assert '<html lang="ko">' in html
    assert "랭크 128이 충분한 랭크 중 가장 작으며" in html
    assert '<html lang="en">' in english.report_html.read_text(encoding="utf-8")
    markdown = korean.report_md.read_text(encoding="utf-8")
    assert all(f"](charts/{path.name})" in markdown for path in korean.charts)
    assert current_language() == "en"


def test_a_korean_report_brings_the_letters_that_it_shows(make_study: MakeStudy) -> None:
    folder = make_study()
    assert "@font-face" not in write_report(folder).report_html.read_text(encoding="utf-8")
    html = write_report(folder, lang="ko").report_html.read_text(encoding="utf-8")
    packed = re.search(r"url\(data:font/woff;base64,([^)]*)\)", html)
    assert packed is not None
    letters = TTFont(io.BytesIO(base64.b64decode(packed[1]))).getBestCmap()
    assert {letter for letter in html if "가" <= letter <= "힣"} <= set(map(chr, letters))
    assert len(packed[1]) < 300_000


def test_a_report_loads_and_summarises_its_study_once(make_study: MakeStudy, times_read: Counter[str]) -> None:
    write_report(make_study(), lang="ko")
    assert times_read == {"loaded": 1, "summarised": 1}


def test_korean_report_is_reproducible(make_study: MakeStudy) -> None:
    folder = make_study()
    written = write_report(folder, lang="ko")
    files = (written.summary_json, written.report_md, written.report_html, *written.charts)
    before = [path.read_bytes() for path in files]
    assert write_report(folder, lang="ko") == written
    assert [path.read_bytes() for path in files] == before


def test_summary_json_is_english_in_every_language(make_study: MakeStudy) -> None:
    folder = make_study()
    english = write_report(folder).summary_json.read_bytes()
    with language("ko"):
        written = write_report(folder)
    assert written.report_html.name == "report.html"
    assert written.summary_json.read_bytes() == english


def test_unknown_language_or_missing_font_writes_nothing(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_study()
    before = sorted(folder.iterdir())
    with pytest.raises(InputError, match="use one of: en, ko"):
        write_report(folder, lang="xx")
    monkeypatch.setattr(fonts, "has_letters", lambda _: False)
    with pytest.raises(InputError, match="empty boxes"):
        write_report(folder, lang="ko")
    assert sorted(folder.iterdir()) == before


BASE = 1_000_000_000
CODE = {
    "lorascope",
    "token_accuracy",
    "Python",
    "UTC",
    "fixed",
    "cpu",
    "Linux",
    "transformers",
    "k_proj",
    "q_proj",
    "PSF",
    "model",
    "rows",
    "NVIDIA",
    "Torch",
}
"""Names in the made-up study's report that stay as they are, beside those of its model, rows and files."""
TITLES = {"title", "words", "part", "kind", "domain"}
"""Where specifications of charts hold words for people."""


def run_of(rank: int, number: int) -> SoloRun:
    """Make a solo run that keeps memory afterwards and is twice as slow the second time."""
    top = BASE + 10**6 * rank
    return SoloRun(
        rank=rank, repeat=number, step_seconds=(3.0, *(1.0 + number,) * 4), warmup_steps=1, step_tokens=(200,) * 5,
        cpu_seconds=2.0, base_bytes=BASE, forward_peak_bytes=top, backward_peak_bytes=top, optimizer_peak_bytes=top,
        evaluation_peak_bytes=None, held_bytes=BASE, after_bytes=BASE + 10**8, reserved_peak_bytes=None,
        memory_method="kernel", samples_bytes=(BASE, top, top - rank, top), warmup_samples=2,
        heaviest_tokens=260 if number else None, activation_bytes=10**6 if number else None,
        product_flops=None if number else 10**10, product_bytes=None if number else 10**9,
    )  # fmt: skip


def gpu_of(rank: int, number: int) -> GpuSample:
    return GpuSample(
        seconds=0.1 * number, rank=rank, uuid="GPU-1", name="A GPU", memory_used_bytes=10**9 + number,
        memory_total_bytes=8 * 10**9, utilization_percent=90, memory_utilization_percent=40 + number, power_watts=100.0,
        sm_clock_mhz=1000, memory_clock_mhz=2000, temperature_celsius=60, throttle_reasons=0,
    )  # fmt: skip


def prediction_of(what: What, rank: int, factor: float) -> PredictionRecord:
    return PredictionRecord(
        what=what, rank=rank, device="A processor", tokens=200.0, step_seconds=1.0 + rank / 1000, factor=factor,
        step_flops=1e10, step_bytes=1e9, base_bytes=BASE, adapter_bytes=rank, gradient_bytes=rank,
        optimizer_bytes=rank, activation_bytes=10**6, rest_bytes=10**6,
    )  # fmt: skip


@pytest.fixture
def whole(make_study: MakeStudy) -> Path:
    """A study that has everything a report can show."""
    spec = StudySpec(ranks=(8, 128), learning_rates=(1e-4, 3e-4), seeds=(0, 1), max_memory="4GB")
    lost = TrialOutcome(
        trial_id="r128-lr0.0001-s1", state="diverged", steps=60, message=Message("trial.gradient_not_finite", step=61)
    )
    folder = make_study(spec=spec, floors={8: 1.3, 128: 1.2}, done={lost.trial_id: 60}, outcomes={lost.trial_id: lost})
    last = "r128-lr0.0003"
    with StudyStore.create(folder / "study.db") as store:
        rows = store.read(EvalRecord, trial_id=last)[-1]
        nats, tokens = rows.example_nats, rows.example_target_tokens
        store.put(TruncationRecord(trial_id=last, rank=8, example_nats=nats, example_target_tokens=tokens, seconds=1.0))
        for trial in ("r8-lr0.0003", last):
            layers = [(f"layers.{layer}.{kind}", kind) for layer in range(2) for kind in ("q_proj", "k_proj")]
            store.put_all(
                [SpectrumRecord(trial_id=trial, layer=name, singular_values=(2.0, 1.0)) for name, _ in layers]
            )
        for number, trial in enumerate((BASE_MODEL, "r8-lr0.0003", last)):
            store.put(
                ForgettingRecord(
                    trial_id=trial, text=BUILTIN_TEXT, text_hash="h", window_nats=(20.0, 30.0 + number, 40.0),
                    window_target_tokens=(10,) * 3, seconds=1.0,
                )
            )  # fmt: skip
        for rank in spec.ranks:
            for number in range(2):
                store.put(run_of(rank, number))
            store.put_all([gpu_of(rank, number) for number in range(5)])
        store.put(MachineRates(dtype="float32", flops_per_second=1e11, bytes_per_second=1e10))
        whats: list[tuple[What, int]] = [("alone", 8), ("alone", 128), ("joint", 0), ("full", 0)]
        store.put_all([prediction_of(what, rank, 1.2) for what, rank in whats])
        store.put_all(
            [
                SystemSample(
                    seconds=float(n), rss_bytes=BASE + n, cpu_percent=150.0, device_allocated_bytes=n,
                    memory_traffic_bytes=10**9 * n,
                )
                for n in range(5)
            ]
        )  # fmt: skip
    return folder


def words_of(spec: object, key: str = "") -> Iterator[str]:
    """Find the words for people in a chart's specification."""
    if isinstance(spec, dict):
        for name, value in spec.items():
            yield from words_of(value, name)
    elif isinstance(spec, list):
        for value in spec:
            yield from words_of(value, key)
    elif isinstance(spec, str) and key in TITLES:
        yield spec


def test_korean_report_has_no_english_left(whole: Path) -> None:
    data = load_study(whole)
    assert data.resolved is not None
    # As the program itself says them; those of the made-up study are nobody's words
    resolved = replace(
        data.resolved, data_notes=(Message("rows.train_repeats", count=3),),
        dtype_reason=Message("dtype.gpu_bfloat16"), packing_reason=ASKED,
        kernels_reason=Message("kernels.compiled", compiler="g++"),
    )  # fmt: skip
    data = replace(data, resolved=resolved)
    with language("ko"):
        summary = summarize_data(data)
        charts = make_charts(data, summary)
        markdown = render("report.md.j2", summary, charts)
    assert len(charts) >= 20
    assert summary.predicted is not None
    # Commands, files, and what the study names itself
    bare = re.sub(r"```.*?```|\]\([^)]*\)|lorascope export [^\n]*", "", markdown, flags=re.DOTALL)
    bare = re.sub(r"made-up/\w+|A processor|abc1234|d{12}|e{12}|g\+\+", "", bare.replace("\\", ""))
    assert foreign(bare) - CODE == set()
    assert not undecided(markdown)
    for chart in charts.values():
        for text in words_of(chart.page_spec):
            assert foreign(text) - CODE == set(), chart.name
