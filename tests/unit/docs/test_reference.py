import reference
from lorascope.spec.schema import StudySpec


def test_the_reference_page_is_what_the_program_says():
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), "run: python tools/reference.py"


def test_every_field_of_a_study_is_documented_under_itself():
    undocumented = [name for name, field in StudySpec.model_fields.items() if not (field.description or "").strip()]
    assert undocumented == []
