"""Links lead somewhere, and names written as code are names of the program."""

import inspect
import re
from pathlib import Path
from typing import get_args

import pytest

import output_reference
import summary_reference
from lorascope import analysis, api, records
from lorascope.analysis import summary
from lorascope.analysis.verdict import schema as verdict
from lorascope.cli.app import app
from lorascope.cli.forecast import Forecast
from lorascope.costmodel.noise import Noise
from lorascope.costmodel.plan import StudyPlan
from lorascope.data import row_tests
from lorascope.data.formats.chat import OPTION_COLUMNS
from lorascope.data.formats.detect import REQUIRED
from lorascope.data.formats.turns import ROLES
from lorascope.scoring.names import BUILT_IN
from lorascope.spec.load import preset_names
from lorascope.spec.schema import StudySpec
from support.pages import PAGES, ROOT, WRITTEN, anchors, inline_code, name, prose

DECISIONS = sorted((ROOT / "docs" / "decisions").glob("20*.md"))
FOREIGN = {
    "tool_calls",  # OpenAI
    "save_pretrained", "save_to_disk",  # Transformers, datasets
    "k_proj",  # a layer of a model
    "base_model_name_or_path", "adapter_config", "use_dora", "use_rslora",  # PEFT
    "llm_int8_threshold",  # bitsandbytes
    "acc_norm",  # lm-eval
    "cost_steps",  # an earlier version
}  # fmt: skip
"""Names of other programs that pages may write as code."""
RENAMED = {
    "data_seed",
    "stable_zone",
    "max_widenings",
    "alpha_multiple",
    "above_largest",
    "above_largest_ci95",
    "cut_loss",
}
"""Earlier names, which the changelog lists."""


def links(page: Path) -> list[str]:
    found = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return [link for link in found if not link.startswith(("http://", "https://"))]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    broken = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def program_names() -> set[str]:
    """Names of the program: fields and values, parameters of commands, modules and tests."""
    found = set(StudySpec.model_fields) | anchors(ROOT / "docs" / "numbers.md") | set(REQUIRED) | set(FOREIGN)
    found |= {*OPTION_COLUMNS, *ROLES, *BUILT_IN, *row_tests.COLUMNS}
    schema, output = summary_reference.schema(), output_reference.outputs_schema()
    events = output_reference.events_schema()
    for part in (schema, *schema["$defs"].values(), *output["$defs"].values(), *events["$defs"].values()):
        found |= set(part["properties"])
    for kind in (verdict.CautionKind, verdict.VerdictKind, verdict.Status, records.OutcomeState):
        found |= set(get_args(kind))
    for record in vars(records).values():
        found |= set(getattr(record, "__dataclass_fields__", ()))
    for field in StudySpec.model_json_schema()["properties"].values():
        found |= set(field.get("enum", ()))
    found |= set(Noise.__dataclass_fields__) | set(StudyPlan.__dataclass_fields__)
    found |= set(re.findall(r'"(\w+)":', inspect.getsource(Forecast.facts)))
    found |= set(inspect.signature(api.run).parameters)
    for tests in (ROOT / "tests").rglob("test_*.py"):
        found |= set(re.findall(r"^def (test_\w+)", tests.read_text(encoding="utf-8"), re.MULTILINE))
    return found | {module.stem for module in (ROOT / "src" / "lorascope").rglob("*.py")}


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_inline_field_names_exist(page: Path) -> None:
    written = {code for code in inline_code(page) if re.fullmatch(r"[a-z]+[0-9]*(_[a-z0-9]+)+", code)}
    assert written <= program_names() | (RENAMED if page.name == "CHANGELOG.md" else set())


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_inline_flags_exist(page: Path) -> None:
    helps = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    written = {flag for code in inline_code(page) for flag in re.findall(r"(?:^| )(--[a-z][a-z-]*)", code)}
    assert {flag for flag in written - {"--help"} if not re.search(rf"{flag}(?![a-z-])", helps)} == set()


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_inline_files_exist(page: Path) -> None:
    roots = (ROOT, ROOT / "src" / "lorascope", page.parent)
    written = {code for code in inline_code(page) if re.fullmatch(r"[\w./-]+/[\w.-]+\.(py|md|toml|txt)", code)}
    assert {code for code in written if not any((root / code).is_file() for root in roots)} == set()


@pytest.mark.parametrize(
    "page", [page for page in WRITTEN if page.name == "CHANGELOG.md" or "decisions" not in page.parts]
)
def test_inline_commands_exist(page: Path) -> None:
    there = {command for command in app if not command.startswith("-")}
    assert {code.split()[1] for code in inline_code(page) if re.match(r"lorascope [a-z]", code)} <= there


def test_every_preset_is_documented() -> None:
    for page in ("README.md", "docs/reference.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert [preset for preset in preset_names() if f"`{preset}`" not in text] == []


def test_every_study_field_is_in_the_reference() -> None:
    reference = ROOT / "docs" / "reference.md"
    assert set(StudySpec.model_fields) <= anchors(reference)


def test_every_caution_and_verdict_is_defined() -> None:
    numbers = (ROOT / "docs" / "numbers.md").read_text(encoding="utf-8")
    kinds = [*get_args(verdict.CautionKind), *get_args(verdict.VerdictKind)]
    assert [kind for kind in kinds if f"`{kind}`" not in numbers] == []
    assert analysis.StudySummary is summary.StudySummary


@pytest.mark.parametrize("page", DECISIONS, ids=name)
def test_decisions_are_dated_and_state_consequences(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    date = page.name[:10]
    assert re.search(rf"^{date} · (accepted|rejected)$", text, re.MULTILINE)
    assert "## Context" in text
    assert "## Decision" in text
    assert "## Consequence" in text or "## Tried" in text
    assert f"]({page.name})" in (page.parent / "README.md").read_text(encoding="utf-8")


def test_tolerance_table_lists_every_numerical_test_file() -> None:
    engine = (ROOT / "docs" / "engine.md").read_text(encoding="utf-8")
    files = [path for folder in ("numerics", "parity") for path in (ROOT / "tests" / folder).glob("test_*.py")]
    assert [name(path) for path in files if f"`{name(path)}`" not in engine] == []
