import importlib.util
from pathlib import Path

from lorascope.spec.schema import StudySpec


def load_maker():
    path = Path(__file__).with_name("reference.py")
    spec = importlib.util.spec_from_file_location("reference", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_page_is_what_the_program_says():
    maker = load_maker()
    assert maker.PAGE.read_text(encoding="utf-8") == maker.page(), "run: python tests/docs/reference.py"


def test_every_field_of_a_study_is_documented_under_itself():
    undocumented = [name for name, field in StudySpec.model_fields.items() if not (field.description or "").strip()]
    assert undocumented == []
