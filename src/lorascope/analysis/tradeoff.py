"""Gains and costs of LoRA against full fine-tuning, from counts and losses."""

from collections.abc import Iterator, Sequence

from lorascope.analysis.readings_schema import RankReadingSection
from lorascope.analysis.summary import RankSection
from lorascope.analysis.verdict.schema import RecommendationSection
from lorascope.message import Message, Sentences
from lorascope.records import ResolvedStudy
from lorascope.units import DTYPE_BYTES

FULL_BYTES = 16
"""Bytes of full fine-tuning for each parameter: weight, gradient and AdamW's two averages, all float32."""


def full_training_bytes(resolved: ResolvedStudy | None) -> int | None:
    """Predict what full fine-tuning would hold, activations left out."""
    return FULL_BYTES * resolved.base_parameters if resolved else None


def training_bytes(resolved: ResolvedStudy | None, part: RankSection) -> int | None:
    """Add the frozen base and the adapter's training state, activations left out."""
    if resolved is None or part.training_state_bytes is None or resolved.dtype not in DTYPE_BYTES:
        return None
    return resolved.weight_bytes + part.training_state_bytes


def tradeoff(
    resolved: ResolvedStudy | None,
    ranks: Sequence[RankSection],
    readings: Sequence[RankReadingSection],
    recommendation: RecommendationSection,
) -> Sentences:
    """Weigh the recommended rank, or else the smallest that has a held-out loss."""
    with_loss = [part for part in ranks if part.eval_loss is not None]
    if not with_loss:
        return (Message("tradeoff.no_loss"),)
    part = next((part for part in with_loss if part.rank == recommendation.use.rank), with_loss[0])
    reading = next(reading for reading in readings if reading.rank == part.rank)
    return *_gains(resolved, part, reading), *_costs(reading, with_loss[-1].rank)


def _gains(resolved: ResolvedStudy | None, part: RankSection, reading: RankReadingSection) -> Iterator[Message]:
    if resolved and part.adapter_bytes is not None and reading.trainable_share is not None:
        yield Message(
            "tradeoff.parameters",
            rank=part.rank,
            share=reading.trainable_share,
            parameters=resolved.base_parameters,
            size=part.adapter_bytes,
        )
    if resolved and reading.training_bytes is not None and part.training_state_bytes is not None:
        full = FULL_BYTES * resolved.base_parameters
        yield Message("tradeoff.memory", size=reading.training_bytes, full=full, bytes=FULL_BYTES)
    if part.eval_loss is not None and reading.loss_gained is not None:
        yield Message(
            "tradeoff.loss_fell" if reading.loss_gained > 0 else "tradeoff.loss_rose",
            change=abs(reading.loss_gained),
            before=part.eval_loss + reading.loss_gained,
            after=part.eval_loss,
        )


def _costs(reading: RankReadingSection, largest: int) -> Iterator[Message]:
    unknown = Message("tradeoff.full_not_run")
    if reading.excess_over_largest is None or reading.excess_over_largest_ci95 is None:
        yield Message("tradeoff.cost", text=unknown)
        return
    excess = (reading.excess_over_largest, *reading.excess_over_largest_ci95)
    yield Message("tradeoff.cost_against_largest", largest=largest, excess=excess)
    yield unknown
