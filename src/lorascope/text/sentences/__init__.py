"""The English sentence of every message code, by subject; catalogs translate the sentences as they stand here."""

from lorascope.text.sentences.cautions import CAUTIONS
from lorascope.text.sentences.costs import COSTS
from lorascope.text.sentences.plural import Plural
from lorascope.text.sentences.readings import READINGS
from lorascope.text.sentences.recommendation import RECOMMENDATION
from lorascope.text.sentences.runs import RUNS
from lorascope.text.sentences.verdict import VERDICT

__all__ = ["SENTENCES", "Plural"]
SENTENCES: dict[str, str | Plural] = {**CAUTIONS, **COSTS, **READINGS, **RECOMMENDATION, **RUNS, **VERDICT}
"""One template a code, see ``lorascope.text.say``."""
