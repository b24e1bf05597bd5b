"""What the cautions look at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lorascope.analysis.data import StudyData
from lorascope.analysis.ranks import Comparison, RankChoice
from lorascope.analysis.summary import TrialPart


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """A study's records and what was read from them so far."""

    data: StudyData
    trials: Sequence[TrialPart]
    choices: Mapping[int, RankChoice]
    comparison: Comparison | None
