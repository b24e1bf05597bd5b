"""Every number has a unit, a direction and a definition that people can find."""

import re
from collections.abc import Callable
from pathlib import Path

import summary_reference
from lorascope import records
from lorascope.analysis import load_study, summarize_data
from lorascope.analysis.summary import RankSection, StudySummary
from lorascope.charts.registry import make_charts
from lorascope.metrics import METRICS, ROW_METRICS
from lorascope.text.language import language
from lorascope.text.metrics import metric_title
from lorascope.text.tables.ranks import rank_table

DOCS = Path(__file__).parents[2] / "docs"
NUMBERS = (DOCS / "numbers.md").read_text(encoding="utf-8")


DEFINITIONS = dict(re.findall(r"^## `(\w+)`\n\n(.*?)(?=^## |\Z)", NUMBERS, re.MULTILINE | re.DOTALL))
"""Sections of numbers.md by the name of their metric."""
LISTED = set(re.findall(r"^- `(\w+)`: ", NUMBERS, re.MULTILINE))
"""Numbers defined inside another section."""


def fields() -> set[str]:
    """Names of all fields of the summary and of the records."""
    parts = (summary_reference.schema(), *summary_reference.schema()["$defs"].values())
    stored = [getattr(record, "__dataclass_fields__", ()) for record in vars(records).values()]
    return {field for part in parts for field in part["properties"]}.union(*stored)


def test_every_definition_begins_with_its_unit_and_direction() -> None:
    for name, text in DEFINITIONS.items():
        direction = r"(lower is better|higher is better|neither better)\."
        assert re.match(rf"\S[^,.]*, {direction}", text), f"docs/numbers.md does not say the direction of {name}"


def test_every_metric_that_labels_an_axis_is_defined_with_its_unit() -> None:
    for name, metric in METRICS.items():
        unit = re.match(r"([^(,]+?)(?: \([^)]*\))?,", DEFINITIONS[name])
        assert unit is not None
        assert unit[1] == (metric.unit or "No unit"), name


def test_every_definition_belongs_to_a_number_that_is_shown_or_stored() -> None:
    groups = {name for name, text in DEFINITIONS.items() if set(re.findall(r"^- `(\w+)`: ", text, re.MULTILINE))}
    assert set(DEFINITIONS) - set(METRICS) - fields() - groups == set()


def test_every_field_of_the_summary_has_its_meaning() -> None:
    reference = summary_reference.page()
    for part in (summary_reference.schema(), *summary_reference.schema()["$defs"].values()):
        for field in part["properties"]:
            assert re.search(rf"^\| `{field}` \| .+ \| \S.* \|$", reference, re.MULTILINE), field


def test_every_verdict_and_caution_is_defined() -> None:
    definitions = StudySummary.model_json_schema(mode="serialization")["$defs"]
    for part in ("VerdictSection", "CautionSection"):
        for kind in definitions[part]["properties"]["kind"]["enum"]:
            assert f"- `{kind}`: " in NUMBERS
    for priority in definitions["RecommendationSection"]["properties"]:
        assert f"- `{priority}`: " in NUMBERS


def holds_a_number(field: dict) -> bool:
    """Whether a field of the summary holds a number, alone, in a list or beside null."""
    if "$ref" in field:
        return False
    options = [*field.get("anyOf", []), *field.get("prefixItems", [])]
    options += [field["items"]] if isinstance(field.get("items"), dict) else []
    return field.get("type") in ("integer", "number") or any(map(holds_a_number, options))


def test_every_number_of_the_summary_is_defined() -> None:
    """By the section of its metric, or under its own name in another section."""
    schema = summary_reference.schema()
    definitions = schema.pop("$defs")
    names = {
        name
        for part in (schema, *definitions.values())
        for name, field in part["properties"].items()
        if "const" not in field and holds_a_number(field)
    }
    assert names >= {"eval_loss", "eval_loss_ci95", "gain_per_doubling", "stable_step", "eval_examples"}
    assert names - set(DEFINITIONS) - LISTED == set()


def test_an_axis_names_its_unit() -> None:
    assert metric_title("eval_loss") == "held-out loss (nats/token)"
    assert metric_title("peak_memory_bytes", unit="MB") == "peak memory (MB)"
    assert metric_title("step") == "step"
    with language("ko"):
        assert metric_title("eval_loss") == "검증 손실 (nats/토큰)"


def test_every_metric_per_held_out_row_has_an_interval_a_column_and_a_chart(
    build_study: Callable[..., Path], tmp_path: Path
) -> None:
    study = load_study(build_study(tmp_path / "study"))
    summary = summarize_data(study)
    charts, header = make_charts(study, summary), rank_table(summary).header
    assert ROW_METRICS
    for name in ROW_METRICS:
        assert {name, f"{name}_ci95"} <= set(RankSection.model_fields)
        assert f"{METRICS[name].label} (95% interval)" in header
        (points,) = {len(layer["data"]["values"]) for layer in charts[f"{name}_by_rank"].spec["layer"]}
        assert points == len(summary.ranks)
