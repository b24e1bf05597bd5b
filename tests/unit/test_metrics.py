"""Every number has a unit, a direction and a definition that people can find."""

import re
from pathlib import Path

from lorascope.analysis.reference import summary_reference, summary_schema
from lorascope.analysis.summary import StudySummary
from lorascope.metrics import METRICS

DOCS = Path(__file__).parents[2] / "docs"
NUMBERS = (DOCS / "numbers.md").read_text(encoding="utf-8")


def section(name: str) -> str:
    found = re.search(rf"^## `{name}`\n\n(.*?)(?=^## |\Z)", NUMBERS, re.MULTILINE | re.DOTALL)
    assert found, f"docs/numbers.md does not define {name}"
    return found.group(1)


def test_every_metric_is_defined_with_its_unit_and_direction() -> None:
    for name, metric in METRICS.items():
        first_sentence = section(name).split(". ")[0]
        assert (metric.unit or {"trainable_parameters": "A count"}.get(name, "No unit")) in first_sentence
        direction = {"lower": "lower is better", "higher": "higher is better", "neither": "neither better"}
        assert direction[metric.better] in first_sentence


def test_every_definition_belongs_to_a_metric() -> None:
    assert set(re.findall(r"^## `(\w+)`", NUMBERS, re.MULTILINE)) == set(METRICS)


def test_the_reference_of_the_summary_is_up_to_date() -> None:
    written = (DOCS / "summary.md").read_text(encoding="utf-8")
    assert written == summary_reference(), "run: python -m lorascope.analysis.reference > docs/summary.md"


def test_every_field_of_the_summary_has_its_meaning() -> None:
    reference = summary_reference()
    for part in (summary_schema(), *summary_schema()["$defs"].values()):
        for field in part["properties"]:
            assert re.search(rf"^\| `{field}` \| .+ \| \S.* \|$", reference, re.MULTILINE), field


def test_every_verdict_and_caution_is_defined() -> None:
    definitions = StudySummary.model_json_schema(mode="serialization")["$defs"]
    for part in ("VerdictSection", "CautionSection"):
        for kind in definitions[part]["properties"]["kind"]["enum"]:
            assert f"- `{kind}`: " in NUMBERS
    for wish in definitions["RecommendationSection"]["properties"]:
        assert f"- `{wish}`: " in NUMBERS


def holds_a_number(field: dict) -> bool:
    """Whether a field of the summary holds a number, alone, in a list or beside null."""
    if "$ref" in field:
        return False
    options = [*field.get("anyOf", []), *field.get("prefixItems", [])]
    options += [field["items"]] if isinstance(field.get("items"), dict) else []
    return field.get("type") in ("integer", "number") or any(map(holds_a_number, options))


def test_every_number_of_the_summary_is_defined() -> None:
    """By the section of its metric, or under its own name in another section."""
    schema = summary_schema()
    definitions = schema.pop("$defs")
    names = {
        name
        for part in (schema, *definitions.values())
        for name, field in part["properties"].items()
        if "const" not in field and holds_a_number(field)
    }
    assert names >= {"eval_loss", "eval_loss_ci95", "gain_per_doubling", "stable_step", "eval_examples"}
    defined = set(METRICS) | set(re.findall(r"^- `(\w+)`: ", NUMBERS, re.MULTILINE))
    assert names - defined == set()


def test_an_axis_names_its_unit() -> None:
    assert METRICS["eval_loss"].title == "held-out loss (nats/token)"
    assert METRICS["step"].title == "step"
