"""Findings: a study's records with the estimates made from them, for cautions and readings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from lorascope.analysis.estimates.ranks import Comparison, RankChoice
from lorascope.analysis.study_data import StudyData
from lorascope.analysis.summary import TrialSection
from lorascope.records import BASE_MODEL


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

    @property
    def base_eval_loss(self) -> float | None:
        """Return the base model's loss on the rows that the ranks are compared on, nats/token.

        None where it was not evaluated on all of them.
        """
        evaluations = chain(*self.data.evaluations.values())
        before = next((record for record in evaluations if record.step == 0), None)
        if before is None:
            return None
        further = self.data.further.get(BASE_MODEL, ())
        nats = (*before.example_nats, *chain(*(record.example_nats for record in further)))
        targets = (*before.example_target_tokens, *chain(*(record.example_target_tokens for record in further)))
        if len(nats) != self.compared_rows:
            return None
        return replace(before, example_nats=nats, example_target_tokens=targets).loss
