"""Report files: complete, self-contained, escaped and reproducible."""

import base64
import hashlib
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import altair as alt
import jsonschema
import pytest

import summary_reference
from lorascope.analysis import summarize
from lorascope.charts.colors import rank_colors
from lorascope.charts.render_pool import RenderPool, share_out
from lorascope.cli import main
from lorascope.errors import InputError
from lorascope.records import Environment, ShownRow, SpectrumRecord, TrialOutcome
from lorascope.report import Report, write_report
from lorascope.report.write import escape_markdown, render
from lorascope.spec.load import dump_spec
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from lorascope.text.say import say
from lorascope.text.summary_json import summary_json
from lorascope.text.tables.advice import headline
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
        "study.yaml", "study.db", "summary.json", "report.md", "report.html", "charts",
    }  # fmt: skip
    assert sorted(path.name for path in report.charts) == [
        "eval_loss.png", "eval_loss_by_rank.png", "eval_loss_by_time.png", "excess_loss_by_rank.png",
        "gain_per_doubling.png", "loss_against_memory.png", "loss_against_time.png", "memory_alone.png",
        "memory_split.png", "runtime.png", "train_loss.png",
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
    html = report.report_html.read_text(encoding="utf-8")
    page = Page(html)
    assert page.open == []
    assert not set(page.tags) & {"link", "img", "iframe", "object", "embed"}
    assert not [name for name, _ in page.attributes if name in ("src", "href", "xlink:href") or name.startswith("on")]
    before_scripts = html[: html.index("<script")]
    assert "url(http" not in before_scripts
    assert "@import" not in before_scripts
    assert page.tags.count("svg") == page.tags.count("figure") == len(report.charts)
    assert report.report_html.stat().st_size < 3_000_000


def test_page_policy_allows_only_its_own_scripts(report: Report) -> None:
    html = report.report_html.read_text(encoding="utf-8")
    scripts = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert len(hashes) == 2
    assert policy[1] == "default-src 'none'; style-src 'unsafe-inline'; script-src " + " ".join(
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


def test_page_begins_with_the_verdict(report: Report) -> None:
    text = Page(report.report_html.read_text(encoding="utf-8")).text
    summary = summarize(report.report_html.parent)
    parts = [
        headline(summary),
        say(summary.verdict.text),
        say(summary.readings.naive.text),
        "Lowest loss",
        say(summary.recommendation.loss.reason),
        "Least memory",
        "The ranks",
        "What is shown of each rank",
        "Training loss by step",
        "Held-out loss by step",
        "What the usual script would conclude",
        say(summary.readings.alpha),
        "What a larger rank gains",
        "Held-out loss by rank",
        "Gain for each doubling of the rank",
        say(summary.readings.knee_text),
        "What each rank costs",
        "Runtime",
        "Peak memory by part",
        "Memory while a rank trained alone",
        "standard deviation (MB)",
        "Loss against time",
        "Loss against memory",
        say(summary.readings.balance),
        "What the curves and sizes say",
        "Read with care",
        say(summary.cautions[0].text),
        "How it was measured",
        "3 rows were cut at 128 tokens.",
        "Where it ran",
        "torch 2.6.0, transformers 5.0.0",
        "Run it again",
        "lorascope run --ranks 8,128,256",
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


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


def test_markdown_escapes_keep_a_table_row_on_its_line() -> None:
    assert escape_markdown("a|b\n*c* <d> & `e`") == "a\\|b \\*c\\* &lt;d&gt; &amp; \\`e\\`"


def test_markdown_tables_have_equal_rows_and_its_pictures_exist(report: Report) -> None:
    lines = report.report_md.read_text(encoding="utf-8").splitlines()
    start = lines.index("## The ranks")
    rows = [line for line in lines[start : lines.index("## What is shown of each rank")] if line.startswith("|")]
    assert len(rows) == 2 + 3
    assert len({line.count("|") for line in rows}) == 1
    assert rows[2].startswith("| 8 | 1.2")
    pictures = [line.split("](")[1].rstrip(")") for line in lines if line.startswith("![")]
    assert {report.report_md.parent / name for name in pictures} == set(report.charts)


def test_trials_table_appears_for_several_or_unfinished_trials(make_study: MakeStudy) -> None:
    assert "## The trials" not in render("report.md.j2", summarize(make_study()), {})
    lost = {"r256": TrialOutcome(trial_id="r256", state="oom", steps=30, message=verbatim("out of memory at step 31"))}
    text = render("report.md.j2", summarize(make_study(done={"r256": 30}, outcomes=lost)), {})
    assert "## The trials" in text
    assert "out of memory: out of memory at step 31" in text


def test_claims_table_has_p_values(make_study: MakeStudy) -> None:
    summary = summarize(make_study())
    rows = {row[0]: row[1:] for row in claims_table(summary).rows}
    assert list(rows) == ["8", "128", "256"]
    assert rows["8"] == ("not shown (p = 1.000)", "shown (p < 0.001)", "shown (p < 0.001)")
    assert rows["128"][0] == "shown (p < 0.001)"
    text = render("report.md.j2", summary, {})
    assert "## What is shown of each rank" in text
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
    assert "What is shown of each rank" not in render("report.md.j2", summary, {})


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
    for path in (report.report_html, report.report_md, *report.charts):
        assert (copy / path.relative_to(report.report_md.parent)).read_bytes() == path.read_bytes()


def test_render_pool_processes_end_with_the_block() -> None:
    with RenderPool() as pool:
        processes = list(pool._processes)
    assert len(processes) >= 1
    assert all(process.returncode is not None for process in processes)


def test_page_of_nine_long_trials_is_below_3_mb(make_study: MakeStudy) -> None:
    spec = StudySpec(ranks=(8, 128, 256), learning_rates=(1e-4, 3e-4, 1e-3))
    paths = write_report(make_study(spec=spec, steps=2_000))
    assert paths.report_html.stat().st_size < 3_000_000
    assert {"eval_loss_by_rate.png", "eval_loss_map.png"} <= {path.name for path in paths.charts}


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
