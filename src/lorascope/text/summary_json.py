"""The text of summary.json and of other sections, English in every language: programs read it."""

from lorascope.analysis.section import Section
from lorascope.analysis.summary import StudySummary
from lorascope.text.language import language
from lorascope.text.say import say


def summary_json(summary: StudySummary) -> str:
    """Write summary.json's text: the same bytes for the same records."""
    return section_json(summary)


def section_json(section: Section) -> str:
    """Write a section as JSON."""
    with language("en"):
        return section.model_dump_json(indent=2, context={"say": say}) + "\n"
