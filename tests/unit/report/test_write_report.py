"""Report files: complete, self-contained, escaped and reproducible."""

import base64
import csv
import gzip
import hashlib
import json
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import altair as alt
import jsonschema
import pytest

import summary_reference
from lorascope.analysis import load_study, summarize
from lorascope.analysis.samples import compare_answers
from lorascope.analysis.verdict.schema import CautionSection
from lorascope.charts.colors import rank_colors
from lorascope.charts.render_pool import RenderPool, share_out
from lorascope.charts.vega_bundle import vega_script
from lorascope.cli import main
from lorascope.errors import InputError
from lorascope.records import (
    BASE_MODEL,
    Environment,
    SampleAnswer,
    SamplePrompt,
    ShownRow,
    SpectrumRecord,
    TrialOutcome,
)
from lorascope.report import Report, write_report
from lorascope.report.templating import escape_markdown
from lorascope.report.write import render
from lorascope.spec.load import dump_spec
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from lorascope.text import write_up
from lorascope.text.say import say
from lorascope.text.summary_json import summary_json
from lorascope.text.tables.advice import status_word
from lorascope.text.tables.ranks import claims_table, rank_table
from support.messages import verbatim

MakeStudy = Callable[..., Path]
HOSTILE = "evil/<script>alert(1)</script>|`*x*`[y](z)"
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Checks that tags nest, and collects tags, attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def report(build_study: MakeStudy, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The report of a finished study, for tests that only read it."""
    return write_report(build_study(tmp_path_factory.mktemp("report") / "study"))


def test_report_writes_all_files_and_leaves_no_others(report: Report) -> None:
    folder = report.report_md.parent
    assert all(path.stat().st_size > 0 for path in (report.summary_json, report.report_md, report.report_html))
    assert {path.name for path in folder.iterdir()} == {
        "study.yaml", "study.db", "summary.json", "report.md", "report.html", "runs.csv", "charts", "charts.zip",
    }  # fmt: skip
    assert sorted(path.name for path in report.charts) == [
        "eval_loss.png", "eval_loss_by_rank.png", "excess_loss_by_rank.png", "gain_per_doubling.png", "grad_norm.png",
        "learning_rate.png", "loss_against_memory.png", "loss_against_time.png", "memory_alone.png",
        "memory_split.png", "runtime.png", "token_accuracy_by_rank.png", "train_loss.png",
    ]  # fmt: skip
    svgs = [path.with_suffix(".svg") for path in report.charts]
    assert set((folder / "charts").iterdir()) == {*report.charts, *svgs}
    written = json.loads(report.summary_json.read_text(encoding="utf-8"))
    jsonschema.validate(written, summary_reference.schema())
    assert written == json.loads(summary_json(summarize(folder)))


def test_a_report_rebuilt_from_the_store_has_the_same_bytes(report: Report) -> None:
    svgs = [path.with_suffix(".svg") for path in report.charts]
    files = (report.summary_json, report.report_md, report.report_html, *report.charts, *svgs)
    before = [path.read_bytes() for path in files]
    for path in files:
        path.unlink()
    assert write_report(report.report_md.parent) == report
    assert [path.read_bytes() for path in files] == before


def test_page_is_self_contained(report: Report) -> None:
    """It loads nothing; its links lead to files beside it, or to its own parts."""
    html = report.report_html.read_text(encoding="utf-8")
    page = Page(html)
    assert page.open == []
    assert not set(page.tags) & {"link", "img", "iframe", "object", "embed"}
    assert not [name for name, _ in page.attributes if name in ("src", "xlink:href") or name.startswith("on")]
    links = [str(value) for name, value in page.attributes if name == "href"]
    parts = {value for name, value in page.attributes if name == "id"}
    beside = {link for link in links if not link.startswith("#")}
    assert beside == {"report.md", "runs.csv", "summary.json", "charts.zip"}
    assert all((report.report_html.parent / link).is_file() for link in beside)
    assert {link[1:] for link in links if link.startswith("#")} <= parts
    before_scripts = html[: html.index("<script")]
    assert "url(http" not in before_scripts
    assert "@import" not in before_scripts
    assert page.tags.count("figure") == len(report.charts)


def test_page_policy_allows_its_own_script_and_the_packed_library(report: Report) -> None:
    html = report.report_html.read_text(encoding="utf-8")
    [script] = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    [packed] = re.findall(r'<script type="text/plain" id="library">(.*?)</script>', html)
    library = gzip.decompress(base64.b64decode(packed)).decode()
    assert library == vega_script()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    hashes = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in (script, library)]
    assert policy[1] == "default-src 'none'; style-src 'unsafe-inline'; font-src data:; script-src " + " ".join(
        f"'sha256-{digest}'" for digest in hashes
    )


def test_page_charts_are_vega_lite_with_the_same_numbers(report: Report) -> None:
    html = report.report_html.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="page-data">(.*?)</script>', html, flags=re.DOTALL)
    assert found is not None
    content = json.loads(found[1])
    assert sorted(content["charts"]) == sorted(path.stem for path in report.charts)
    assert content["ranks"] == {str(rank): color for rank, color in rank_colors((8, 128, 256)).items()}
    for spec in content["charts"].values():
        alt.Chart.from_dict(spec, validate=True)
    steps = [row["step"] for row in content["charts"]["train_loss"]["data"]["values"] if row["rank"] == "8"]
    assert steps == list(range(1, 81))


def test_page_begins_with_the_answer_and_folds_the_details(report: Report) -> None:
    html = report.report_html.read_text(encoding="utf-8")
    summary = summarize(report.report_html.parent)
    sight, _, details = html.partition('<section class="more">')
    [heading] = re.findall(r"<h1[^>]*>(.*?)</h1>", html)
    assert heading == say(summary.answer.text)
    parts = [
        status_word(summary.answer),
        say(summary.answer.text),
        "vs best (95%)",
        "base",
        "Lowest loss",
        "Least memory",
        "lorascope export",
        "Loss curves",
        "Loss against cost",
        "Cost of each rank",
        "For your write-up",
        "Runs",
        say(summary.cautions[0].text),
    ]
    text = Page(sight.partition("<body>")[2]).text
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert sight.count("<table") == 3
    assert sight.count('class="caveats"') == 1
    assert len(re.findall(r'<a href="#caveat-', sight)) <= 3
    folded = re.findall(r"<details( open)? id=.*?<h3>(.*?)</h3>", details, flags=re.DOTALL)
    assert [title for is_open, title in folded if is_open] == ["Reproduce"]
    for title in ("Tests and p-values", "If you had looked at training loss only", "Return on rank", "Method"):
        assert ("", title) in folded
    for words in (say(summary.verdict.text), say(summary.readings.balance), "3 rows were cut at 128 tokens."):
        assert words in Page(f"<html><body><main><section>{details}").text


def test_chosen_and_other_charts_in_sight_are_at_most_five(report: Report) -> None:
    sight = report.report_html.read_text(encoding="utf-8").partition('<section class="more">')[0]
    shown = len(re.findall('<input type="radio"[^>]* checked', sight))
    in_switches = sight.count('<input type="radio"')
    assert shown + sight.count('data-chart="') - in_switches <= 5


def test_interval_is_drawn_in_its_cell_without_a_script(report: Report) -> None:
    summary = summarize(report.report_html.parent)
    html = report.report_html.read_text(encoding="utf-8")
    drawn = re.findall(r'<svg class="interval-drawn".*?</svg>', html)
    assert len(drawn) == len(summary.ranks)

    def number(name: str, svg: str) -> float:
        found = re.search(rf' {name}="([-\d.]+)"', svg)
        assert found is not None
        return float(found[1])

    excess = [part.excess_loss or 0.0 for part in summary.ranks]
    centers = [number("cx", svg) for svg in drawn]
    assert sorted(range(3), key=excess.__getitem__) == sorted(range(3), key=centers.__getitem__)
    for svg, part in zip(drawn, summary.ranks, strict=True):
        assert part.excess_loss_ci95 is not None
        ends = re.search(r'stroke-width="3" x1="([-\d.]+)" x2="([-\d.]+)"', svg)
        assert ends is not None
        assert float(ends[1]) <= number("cx", svg) <= float(ends[2])


def test_downloads_hold_every_run_and_chart(report: Report) -> None:
    folder = report.report_html.parent
    with (folder / "runs.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    trials = summarize(folder).trials
    assert [row["trial_id"] for row in rows] == [trial.trial_id for trial in trials]
    assert [float(row["eval_loss"]) for row in rows] == [trial.eval_loss for trial in trials]
    with zipfile.ZipFile(folder / "charts.zip") as archive:
        assert archive.testzip() is None
        names = {name for path in report.charts for name in (path.name, path.with_suffix(".svg").name)}
        assert set(archive.namelist()) == names


def test_write_up_is_copied_in_both_languages_and_forms(report: Report) -> None:
    html = report.report_html.read_text(encoding="utf-8")
    found = re.search(r'id="page-data">(.*?)</script>', html, flags=re.DOTALL)
    assert found is not None
    copies = json.loads(found[1])["copies"]
    assert set(copies) == {f"{code}-{form}" for code in ("en", "ko") for form in ("markdown", "latex")}
    assert set(copies) == set(re.findall(r'data-copy="([^"]+)"', html))
    summary = summarize(report.report_html.parent)
    assert copies["en-markdown"] == write_up.markdown(summary)
    for paragraph in write_up.paragraphs(summary):
        assert paragraph in Page(html).text


def test_what_may_make_the_study_useless_is_said_in_full_and_first(make_study: MakeStudy) -> None:
    summary = summarize(make_study())
    assert 'class="grave"' not in render("report.html.j2", summary, {})
    grave = CautionSection(kind="dropped_rows", text=(verbatim("Most rows were dropped."),))
    html = render("report.html.j2", summary.model_copy(update={"cautions": (grave, *summary.cautions)}), {})
    assert '<p class="grave">Most rows were dropped.</p>' in html
    assert html.index("Most rows were dropped.") < html.index("<table")


def test_runs_link_to_their_adapters(make_study: MakeStudy) -> None:
    folder = make_study()
    (folder / "adapters" / "r8").mkdir(parents=True)
    html = render("report.html.j2", summarize(folder), {}, folder=folder)
    assert '<a href="adapters/r8/">r8</a>' in html
    assert 'href="adapters/r128/"' not in html
    command = shlex.join(["lorascope", "export", str(folder), "--rank", "128", "--to", "study-r128"])
    assert command in Page(html).text


def test_untrusted_names_are_escaped_in_page_and_markdown(make_study: MakeStudy) -> None:
    summary = summarize(make_study(model=HOSTILE))
    page = Page(render("report.html.j2", summary, {}))
    assert "script" not in page.tags
    assert HOSTILE in page.text
    markdown = render("report.md.j2", summary, {})
    assert "<script>" not in markdown
    assert escape_markdown(HOSTILE) in markdown


def test_untrusted_layer_name_stays_in_the_page_data(make_study: MakeStudy) -> None:
    folder = make_study()
    hostile = "layers.0.</script><script>alert(1)</script>'+datum+\"<!--"
    with StudyStore.create(folder / "study.db") as store:
        store.put_all([SpectrumRecord(trial_id="r256", layer=hostile, singular_values=(2.0, 1.0))])
    paths = write_report(folder)
    html = paths.report_html.read_text(encoding="utf-8")
    page = Page(html)
    assert page.open == []
    assert page.tags.count("script") == 3
    assert "<script>alert" not in html
    found = re.search(r'id="page-data">(.*?)</script>', html, flags=re.DOTALL)
    assert found is not None
    module = hostile.rpartition(".")[2]
    rows = json.loads(found[1])["charts"]["effective_rank"]["layer"][0]["data"]["values"]
    assert rows == [{"module": module, "layer": 0, "effective": rows[0]["effective"]}]
    assert "<script>" not in (folder / "charts" / "effective_rank.svg").read_text(encoding="utf-8")
    assert "<script>" not in paths.report_md.read_text(encoding="utf-8")


def test_untrusted_command_stays_in_its_markdown_block(make_study: MakeStudy) -> None:
    folder = make_study()
    command = "lorascope run --dataset '```` \n# not a heading'"
    with StudyStore.create(folder / "study.db") as store:
        store.put(replace(store.read(Environment)[0], command=command))
    text = render("report.md.j2", summarize(folder), {})
    assert f"`````sh\n{command}\n`````\n" in text


def test_training_rows_are_shown_with_their_targets_as_text(make_study: MakeStudy) -> None:
    folder = make_study()
    pieces = ("<|user|>\n<script>alert(1)</script>\x1b```", "</pre>*sum*</s>\n")
    with StudyStore.create(folder / "study.db") as store:
        store.put_all([ShownRow(row=row, pieces=pieces, tokens=9, targets=4) for row in (1, 2)])
    report = write_report(folder)
    html = report.report_html.read_text(encoding="utf-8")
    page = Page(html)
    assert page.open == []
    assert html.count("<mark>&lt;/pre&gt;*sum*&lt;/s&gt;\n</mark></pre>") == 2
    assert "<|user|>\n<script>alert(1)</script>\\x1b```</pre>*sum*</s>\n" in page.text
    assert "Row 2: 9 tokens, 4 targets" in page.text
    markdown = report.report_md.read_text(encoding="utf-8")
    assert "\n````text\n<|user|>\n<script>alert(1)</script>\\x1b```[[</pre>*sum*</s>\n]]\n````\n" in markdown


HOSTILE_TEXTS = {
    BASE_MODEL: "</pre><script>alert(1)</script>", "r8": "</textarea>```\x1b *a* {{ b }}", "r128": "</textarea>``` *c*",
}  # fmt: skip


def write_answers(folder: Path, texts: dict[str, str], **changes: object) -> None:
    """Write answers to two prompts, the second one asked for by no study of one sample."""
    fields: dict[str, object] = {"tokens": 9, "ended": True, "max_new_tokens": 64, "temperature": 0.0, "error": None}
    with StudyStore.create(folder / "study.db") as store:
        for place in (1, 2):
            prompt = SamplePrompt(
                place=place, row=place, prompt=f"{place}: <b>|x|", truth="</div>&amp;", prompt_tokens=4,
                truth_tokens=5, continued=False,
            )  # fmt: skip
            store.put(prompt)
            answers = ({"trial_id": name, "place": place, "text": text, "seconds": 0.1} for name, text in texts.items())
            store.put_all([SampleAnswer(**fields | answer | changes) for answer in answers])  # type: ignore[arg-type]


def test_report_shows_answers_of_models_as_text(make_study: MakeStudy) -> None:
    folder = make_study()
    write_answers(folder, HOSTILE_TEXTS)
    report = write_report(folder)
    html = report.report_html.read_text(encoding="utf-8")
    page = Page(html)
    assert page.open == []
    assert page.tags.count("script") == 3
    assert not {"textarea", "b"} & set(page.tags)
    for shown in ("1: <b>|x|", "</div>&amp;", HOSTILE_TEXTS[BASE_MODEL], "</textarea>```\\x1b *a* {{ b }}"):
        assert shown in page.text
    assert "<pre>&lt;/textarea&gt;``` *<mark>c</mark>*</pre>" in html
    assert '<a href="samples.jsonl" download>' in html
    markdown = report.report_md.read_text(encoding="utf-8")
    assert "\n````text\n</textarea>``` *[[c]]*\n````\n" in markdown
    lines = (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["row"] for line in lines] == [1, 2]
    first = json.loads(lines[0])
    assert (first["prompt"], first["truth"]) == ("1: <b>|x|", "</div>&amp;")
    assert [(one["rank"], one["text"]) for one in first["answers"]] == [
        (0, HOSTILE_TEXTS[BASE_MODEL]), (8, HOSTILE_TEXTS["r8"]), (128, HOSTILE_TEXTS["r128"]),
    ]  # fmt: skip


def test_answers_of_other_settings_and_of_no_use_are_not_shown(make_study: MakeStudy) -> None:
    folder = make_study(spec=StudySpec(ranks=(8, 128), samples=1))
    write_answers(folder, {BASE_MODEL: "one"})
    write_answers(folder, {"r8": "two"}, temperature=0.5)
    write_answers(folder, {"r128": "three"}, error=verbatim("no generation"))
    (found,) = compare_answers(load_study(folder))
    assert found.prompt.place == 1
    assert [one.answer.text for one in found.answers] == ["one"]


def test_markdown_escapes_keep_a_table_row_on_its_line() -> None:
    assert escape_markdown("a|b\n*c* <d> & `e`") == "a\\|b \\*c\\* &lt;d&gt; &amp; \\`e\\`"


def test_markdown_tables_have_equal_rows_and_its_pictures_exist(report: Report) -> None:
    lines = report.report_md.read_text(encoding="utf-8").splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("| rank |"))
    rows = lines[start : start + 6]
    assert len({line.count("|") for line in rows}) == 1
    assert rows[2].startswith("| base | 2.3")
    assert rows[3].startswith("| 8 | 1.2")
    pictures = [line.split("](")[1].rstrip(")") for line in lines if line.startswith("![")]
    assert {report.report_md.parent / name for name in pictures} == set(report.charts)


def test_runs_say_why_they_ended(make_study: MakeStudy) -> None:
    lost = {
        "r256": TrialOutcome(trial_id="r256", state="oom", steps=30, message=verbatim("out of memory at step 31")),
        "r128": TrialOutcome(trial_id="r128", state="stopped", steps=30, message=verbatim("fell behind")),
    }
    summary = summarize(make_study(done={"r256": 30, "r128": 30}, outcomes=lost))
    text = render("report.md.j2", summary, {})
    assert "out of memory: out of memory at step 31" in text
    assert "| stopped early |" in text
    assert 'title="fell behind">stopped early<' in render("report.html.j2", summary, {})


def test_claims_table_has_p_values(make_study: MakeStudy) -> None:
    summary = summarize(make_study())
    rows = {row[0]: row[1:] for row in claims_table(summary).rows}
    assert list(rows) == ["8", "128", "256"]
    assert rows["8"] == ("not shown (p = 1.000)", "shown (p < 0.001)", "shown (p < 0.001)")
    assert rows["128"][0] == "shown (p < 0.001)"
    text = render("report.md.j2", summary, {})
    assert "## Tests and p-values" in text
    assert "With one seed, in that seed only." in text


def test_interval_tables_count_seeds(make_study: MakeStudy) -> None:
    spec = StudySpec(ranks=(8, 128), seeds=(0, 1, 2))
    summary = summarize(make_study(spec=spec, floors={8: 1.3, 128: 1.2}))
    table = rank_table(summary)
    assert [row[table.header.index("seeds")] for row in table.rows] == ["3", "3"]
    text = render("report.md.j2", summary, {})
    assert "held-out rows and of seeds (3 seeds)" in text
    assert "Noise floor: two seeds of the same rank end" in text
    assert "in that seed only" not in text


def test_claims_table_is_absent_without_comparisons(make_study: MakeStudy) -> None:
    summary = summarize(make_study(done={"r256": 45}))
    assert "Tests and p-values" not in render("report.md.j2", summary, {})


def test_readings_tables_show_the_numbers_of_the_summary(make_study: MakeStudy) -> None:
    spec = StudySpec(ranks=(8, 128), learning_rates=(1e-4, 3e-4), alpha_rule="proportional", max_memory="1.1GB")
    summary = summarize(make_study(spec=spec, floors={8: 1.3, 128: 1.2}))
    text = render("report.md.j2", summary, {})
    grid = {(cell.rank, cell.learning_rate): cell.eval_loss for cell in summary.readings.grid}
    assert f"| 8 | {grid[8, 1e-4]:.4f} | {grid[8, 3e-4]:.4f} |" in text
    (step,) = summary.readings.doublings
    assert f"| 8 to 128 | {step.gain:.4f} ({step.gain_ci95[0]:.4f} to {step.gain_ci95[1]:.4f}) |" in text
    reading = summary.readings.ranks[0]
    assert f"| 8 | 4 | {reading.stable_step} | {reading.train_gap:.4f} | {reading.final_spread:.4f} |" in text
    assert "- at 0.0001, after 80 steps: " in text
    assert "| Lowest loss | 8 | unproven | the lowest loss within the limits, 0." in text
    assert "- limits: peak memory 1.10 GB" in text
    assert "- alpha (scale) of each rank: r 8: 32 (4), r 128: 512 (4)" in text
    page = Page(render("report.html.j2", summary, {}))
    assert page.open == []
    assert "Where memory is scarce" not in page.text


def test_column_without_values_is_left_out(make_study: MakeStudy) -> None:
    summary = summarize(make_study(costs=False))
    header = rank_table(summary).header
    assert "held-out loss (95% interval)" in header
    assert "peak memory" not in header
    assert all(len(row) == len(header) for row in rank_table(summary).rows)


@pytest.mark.parametrize("done", [0, 45])
def test_unfinished_study_has_a_report(make_study: MakeStudy, done: int) -> None:
    paths = write_report(make_study(done={"r8": done, "r128": done, "r256": done}))
    assert "not finished" in paths.report_md.read_text(encoding="utf-8")
    assert Page(paths.report_html.read_text(encoding="utf-8")).open == []


def test_grid_of_rates_and_seeds_has_a_report(make_study: MakeStudy) -> None:
    spec = StudySpec(ranks=(8, 128), learning_rates=(1e-4, 3e-4), seeds=(0, 1))
    page = Page(render("report.html.j2", summarize(make_study(spec=spec, floors={8: 1.3, 128: 1.2})), {}))
    assert "r8-lr0.0001-s1" in page.text


def test_error_leaves_the_old_report_in_place(make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_study()
    (folder / "report.md").write_bytes(b"the old report")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        write_report(folder)
    assert (folder / "report.md").read_bytes() == b"the old report"
    assert not list(folder.rglob("*.tmp"))


def test_render_pool_gives_the_bytes_of_one_process(
    report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("study.yaml", "study.db"):
        shutil.copy(report.report_md.parent / name, copy / name)
    with pytest.raises(SystemExit) as ended:
        main(["report", str(copy)])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == str(copy / "report.html")
    folder = report.report_md.parent
    for path in (report.report_html, report.report_md, folder / "charts.zip", folder / "runs.csv", *report.charts):
        written = (copy / path.relative_to(folder)).read_bytes()
        # commands name the folder
        named = written.replace(str(copy).encode(), str(folder).encode()).replace(b"copy-r", b"study-r")
        assert named == path.read_bytes()


def test_render_pool_processes_end_with_the_block() -> None:
    with RenderPool() as pool:
        processes = list(pool._processes)
    assert len(processes) >= 1
    assert all(process.returncode is not None for process in processes)


def test_page_of_nine_long_trials_is_below_a_megabyte_and_a_half(make_study: MakeStudy) -> None:
    spec = StudySpec(ranks=(8, 128, 256), learning_rates=(1e-4, 3e-4, 1e-3))
    paths = write_report(make_study(spec=spec, steps=2_000))
    assert paths.report_html.stat().st_size < 1_500_000
    assert "eval_loss_by_rate.png" in {path.name for path in paths.charts}


def test_planned_study_has_a_report(tmp_path: Path) -> None:
    spec = StudySpec(ranks=(8, 128))
    (tmp_path / "study.yaml").write_text(dump_spec(spec), encoding="utf-8")
    StudyStore.create(tmp_path / "study.db").close()
    paths = write_report(tmp_path)
    assert paths.charts == ()
    text = Page(paths.report_html.read_text(encoding="utf-8")).text
    assert "The study has not begun." in text
    assert "Not finished" in text
    assert "<script" not in paths.report_html.read_text(encoding="utf-8")


def test_store_of_another_version_is_one_error(make_study: MakeStudy, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_study()
    with closing(sqlite3.connect(folder / "study.db")) as connection:
        connection.execute("PRAGMA user_version = 999")
    with pytest.raises(SystemExit) as ended:
        main(["report", str(folder)])
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert "written by another version of lorascope" in message
    assert "Traceback" not in message


def test_folder_without_a_study_gets_no_report(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no study store"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_reading_a_study_imports_no_torch() -> None:
    heavy = "{'torch', 'transformers', 'datasets', 'altair', 'pandas'}"
    code = f"import sys, lorascope.report; print({heavy} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_render_pool_balances_charts_by_size() -> None:
    assert share_out({"a": 5, "b": 90, "c": 40, "d": 30}, 2) == [["b"], ["c", "d", "a"]]
    assert share_out({"a": 5}, 2) == [["a"], []]
