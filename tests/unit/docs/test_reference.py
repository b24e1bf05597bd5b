import reference
import summary_reference
from lorascope.spec.schema import StudySpec


def test_the_reference_page_is_what_the_program_says() -> None:
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), "run: python tools/reference.py"


def test_the_reference_of_the_summary_and_its_schema_are_what_the_program_says() -> None:
    command = "run: python tools/summary_reference.py"
    assert summary_reference.PAGE.read_text(encoding="utf-8") == summary_reference.page(), command
    assert summary_reference.SCHEMA.read_text(encoding="utf-8") == summary_reference.schema_text(), command


def test_every_field_of_a_study_is_documented_under_itself() -> None:
    undocumented = [name for name, field in StudySpec.model_fields.items() if not (field.description or "").strip()]
    assert undocumented == []
