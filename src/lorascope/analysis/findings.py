"""Findings: a study's records with the estimates made from them, for cautions and readings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lorascope.analysis.estimates.ranks import Comparison, RankChoice
from lorascope.analysis.study_data import StudyData
from lorascope.analysis.summary import TrialSection


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """A study's records and the estimates made from them so far."""

    data: StudyData
    trials: Sequence[TrialSection]
    choices: Mapping[int, RankChoice]
    comparison: Comparison | None

    @property
    def compared_rows(self) -> int:
        """Return the held-out rows that the ranks are compared on; 0 before they were counted."""
        data = self.data
        return data.looks[-1].rows if data.looks else data.resolved.eval_examples if data.resolved else 0
