"""Shape of an adapter's audit, as ``lorascope audit --json`` writes it."""

from typing import Literal

from lorascope.analysis.adapters.schema import CutSection, ForgettingSection, GenericTextSection, SpectrumSection
from lorascope.analysis.section import Interval, Section
from lorascope.message import Sentences

AuditVerdict = Literal["enough", "no_smaller", "no_gain", "small_gain", "too_few", "rank_one", "not_finite"]


class AuditAnswer(Section):
    """One held-out prompt and what was written to it."""

    row: int
    """Number of the held-out row, from 1."""
    prompt: str
    """The prompt."""
    truth: str
    """The true answer."""
    base: str
    """The answer of the base, the likeliest token each time unless tokens are drawn."""
    adapter: str
    """The adapter's answer."""


class AdapterAudit(Section):
    """How much of an adapter's rank is used. Losses are in nats a token."""

    adapter: str
    """Folder of the adapter."""
    model: str
    """Its base."""
    dataset: str
    """The rows that it was evaluated on."""
    rank: int
    """LoRA rank r, that of the layer with the largest; twice the trained one where PiSSA or OLoRA was converted."""
    layers: int
    """Layers that it changes."""
    parameters: int
    """Numbers in the adapter's file."""
    eval_examples: int
    """Held-out rows."""
    eval_target_tokens: int
    """Their tokens the loss is taken on."""
    tolerance: float
    """A truncated adapter is enough if its loss is higher by at most this."""
    base_eval_loss: float
    """Held-out loss of the base."""
    eval_loss: float | None
    """Held-out loss of the adapter; null where it is not finite."""
    change: float | None
    """The adapter's loss minus the base's."""
    change_ci95: Interval | None
    """Its 95% paired interval over held-out rows."""
    verdict: AuditVerdict
    """``enough``: a smaller rank is shown to be enough; ``no_smaller``: none is; ``no_gain``: the adapter itself is not
    shown to be better than the base; ``small_gain``: it is better by less than the tolerance; ``too_few``: fewer than
    20 rows; ``rank_one``: there is no smaller rank;
    ``not_finite``: the adapter has no finite loss."""
    text: Sentences
    """The verdict in words."""
    adequate_rank: int | None
    """Smallest rank to which the adapter can be truncated so that its excess, and that of all larger ones, is below the
    tolerance with its interval; null where none is."""
    cuts: tuple[CutSection, ...]
    """The adapter truncated to smaller ranks, ascending."""
    spectra: tuple[SpectrumSection, ...]
    """How many directions it uses, by kind of module."""
    forgetting: ForgettingSection | None
    """Change of the loss on the generic text; null where none was read."""
    generic_text: GenericTextSection | None
    """That text."""
    answers: tuple[AuditAnswer, ...]
    """Held-out prompts with the answers of base and adapter."""
    notes: Sentences
    """How the rows were read, and what to know of the base."""
