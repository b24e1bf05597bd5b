"""Shape of the metrics per held-out row in summary.json."""

from typing import Literal

from lorascope.analysis.section import Interval, Section
from lorascope.message import Sentences

MetricVerdict = Literal["differs", "not_shown", "too_few", "one_rank"]


class MetricRankSection(Section):
    """What one rank scores under a metric."""

    rank: int
    """LoRA rank r."""
    score: float
    """Mean over the rows and seeds, from 0 to 1."""
    score_ci95: Interval | None
    """Its 95% interval over rows and, with several seeds, over seeds; null where the rows support none."""
    below_best: float
    """How far it is below the rank of the highest score."""
    below_best_ci95: Interval | None
    """Its 95% interval, paired by row and by seed; null for that rank, and where the rows support none."""
    shown: bool
    """True where it is shown to be below that rank, with a chance of error of 5 % over all ranks."""


class MetricSection(Section):
    """One metric per held-out row, and what it shows of the ranks."""

    name: str
    """As the study names it; ``lm_eval:TASK/METRIC`` of a task of EleutherAI's harness."""
    verdict: MetricVerdict
    """``differs``: some rank is shown to be below the highest; ``not_shown``: none is; ``too_few``: there are too few
    rows for a verdict; ``one_rank``: nothing to compare."""
    text: Sentences
    """The same in words, with the numbers."""
    rows: int
    """Held-out rows, or documents of the task, that are compared."""
    failed_rows: int
    """Rows left out because the metric could not judge an answer to them."""
    seeds: int
    """Seeds that all ranks have."""
    base_score: float | None
    """What the base model scores on the same rows."""
    best: int
    """The rank of the highest score; of equal ones the smallest."""
    ranks: tuple[MetricRankSection, ...]
    """Every rank that has scores, ascending."""
    noise_floor: float | None
    """Root mean square of the difference in score between two seeds of the same rank; null with one seed."""
    rows_to_show: int | None
    """Rows that would show the observed difference between the highest and the lowest rank in four studies of five;
    null where it is shown, or no number of rows would."""
