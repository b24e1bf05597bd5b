import reference
import summary_reference
from lorascope.spec.schema import StudySpec


def test_reference_page_is_generated_from_the_program() -> None:
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), "run: python tools/reference.py"


def test_summary_reference_and_schema_are_generated() -> None:
    command = "run: python tools/summary_reference.py"
    assert summary_reference.PAGE.read_text(encoding="utf-8") == summary_reference.page(), command
    assert summary_reference.SCHEMA.read_text(encoding="utf-8") == summary_reference.schema_text(), command


def test_every_study_field_has_a_docstring() -> None:
    undocumented = [name for name, field in StudySpec.model_fields.items() if not (field.description or "").strip()]
    assert undocumented == []
