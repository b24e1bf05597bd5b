"""Sentences of the verdict."""

from lorascope.text.sentences.plural import Plural

VERDICT: dict[str, str | Plural] = {
    "verdict.not_begun": "The study has not begun.",
}
