"""Sentences about how a study ran: rows, model, trials."""

from lorascope.text.sentences.plural import Plural

RUNS: dict[str, str | Plural] = {
    "verbatim": "{text}",
}
