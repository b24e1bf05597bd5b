"""Shape of verdict, recommendation and cautions in summary.json."""

from typing import Literal

from lorascope.analysis.section import Section
from lorascope.message import Message, Sentences

Status = Literal["clear", "tie", "undecided", "too_early", "one_rank", "no_answer"]
Evidence = Literal["proven", "likely", "unproven"]
VerdictKind = Literal["adequate", "no_measurable_difference", "too_short", "nothing_to_compare"]
CautionKind = Literal[
    "adapter_differs",
    "dropped_rows",
    "unfinished",
    "ended_early",
    "one_learning_rate",
    "learning_rate_at_edge",
    "one_seed",
    "few_eval_examples",
    "short_run",
    "no_end_token",
    "cut_rows",
    "orders_disagree",
    "eval_loss_rising",
    "no_improvement",
    "underpowered",
    "seeds_added",
    "below_capacity",
    "environment_changed",
    "memory_not_returned",
    "unsteady_steps",
]


class AnswerSection(Section):
    """The study in one word and one sentence."""

    status: Status
    """``clear``: a rank is shown to be enough; ``tie``: the ranks are shown to be equally good; ``undecided``: the data
    cannot tell; ``too_early``: there is too little of it for any verdict; ``one_rank``: nothing to compare;
    ``no_answer``: no rank can be named."""
    text: Message
    """The answer in one sentence."""
    now: Sentences
    """Steps to take for now, and how to make the adapter smaller; empty where the answer says all."""
    truncate_to: int | None
    """Rank that the adapter of the rank to use can be truncated to: the largest rank's smallest ``adequate_rank``; null
    where no smaller rank is shown to lose less than the tolerance."""


class AdviceSection(Section):
    """One recommended rank."""

    rank: int | None
    """The rank; null when the records support none."""
    reason: Message
    """Why, with the numbers."""
    evidence: Evidence | None = None
    """How sure it is that its loss is within the tolerance of the lowest; null with one rank."""
    chance: float | None = None
    """Probability of that under a flat prior; null with one rank or one seed."""
    change: Sentences = ()
    """Conditions under which the recommendation would change."""


class RecommendationSection(Section):
    """The rank to use, and the rank that each need names."""

    use: AdviceSection
    """The rank to use: that of the need which the study prefers."""
    loss: AdviceSection
    """Lowest loss: the rank of the lowest estimate."""
    value: AdviceSection
    """Best value: the smallest rank shown to be enough, or else that of the least expected loss above the lowest when
    a doubling of the rank must gain a fifth of the tolerance."""
    time: AdviceSection
    """Fastest; null where times were not measured or are not steady enough to compare."""
    memory: AdviceSection
    """Least memory: the smallest rank."""


class ClaimsSection(Section):
    """Hypothesis tests on one rank: p-values, corrected for the number of ranks. At most 0.05 is significant."""

    rank: int
    """LoRA rank r."""
    adequate_p: float
    """Of the claim that no rank has a loss lower by more than the tolerance."""
    inadequate_p: float
    """Of the claim that some rank has a loss lower by more than the tolerance."""
    worse_p: float
    """Of the claim that some rank has a lower loss, by however little."""


class NoiseFloorSection(Section):
    """How far apart two runs of the same rank end: same learning rate and rows, another seed (A/A pairs)."""

    pairs: int
    """Pairs of seeds, over all ranks."""
    typical: float
    """Root mean square of their differences in held-out loss."""
    largest: float
    """The largest of them."""
    difference_sd: float | None
    """Standard deviation, from seed to seed, of the difference between two ranks; null with one rank."""


class RemedySection(Section):
    """What would decide an undecided study."""

    text: Message
    """Seeds, or else held-out rows, that make the widest interval as narrow as the tolerance; or that none would."""
    seconds: float | None
    """Time that the further seeds or rows take at the study's pace; null where none would do, or nothing was timed."""


class VerdictSection(Section):
    """Verdict: the conclusion that the data supports."""

    kind: VerdictKind
    """The verdict in one word."""
    text: Sentences
    """The verdict in words, with the numbers."""
    seeds: int = 0
    """Seeds behind the differences: the replications. With 1 the intervals cover held-out rows only."""
    rank_matters: bool | None = None
    """True when some rank is shown to be worse than another; null with one seed, or where the data cannot show it."""
    claims: tuple[ClaimsSection, ...] = ()
    """Hypothesis tests on every rank, ascending; empty where nothing is compared."""
    remedy: RemedySection | None = None
    """What would decide it; null where every interval is narrow enough."""
    noise_floor: NoiseFloorSection | None = None
    """Differences that another seed alone makes; null with one seed."""


class CautionSection(Section):
    """One reason to read the numbers with care."""

    kind: CautionKind
    """The reason in one word."""
    text: Sentences
    """The reason in words."""
