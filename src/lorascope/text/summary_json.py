"""The text of summary.json, which is English in every language: programs read it."""

from lorascope.analysis.summary import StudySummary
from lorascope.text.language import language
from lorascope.text.say import say


def summary_json(summary: StudySummary) -> str:
    """Write summary.json's text: the same bytes for the same records."""
    with language("en"):
        return summary.model_dump_json(indent=2, context={"say": say}) + "\n"
