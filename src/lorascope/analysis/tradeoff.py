"""What LoRA gained and what it cost, from counts and losses."""

from collections.abc import Sequence

from lorascope.analysis.readings_schema import RankReadingSection
from lorascope.analysis.summary import RankSection
from lorascope.analysis.verdict.schema import RecommendationSection
from lorascope.records import ResolvedStudy
from lorascope.text.language import tr
from lorascope.text.numbers import format_count, interval, lower_first, nats
from lorascope.units import DTYPE_BYTES, format_bytes

FULL_BYTES = 16
"""Bytes of full fine-tuning for each parameter: weight, gradient and AdamW's two averages, all float32."""


def full_training_bytes(resolved: ResolvedStudy | None) -> int | None:
    """Predict what full fine-tuning would hold, activations left out."""
    return FULL_BYTES * resolved.base_parameters if resolved else None


def training_bytes(resolved: ResolvedStudy | None, part: RankSection) -> int | None:
    """Add the frozen base and the adapter's training state, activations left out."""
    if resolved is None or part.training_state_bytes is None or resolved.dtype not in DTYPE_BYTES:
        return None
    return DTYPE_BYTES[resolved.dtype] * resolved.base_parameters + part.training_state_bytes


def balance_text(
    resolved: ResolvedStudy | None,
    ranks: Sequence[RankSection],
    readings: Sequence[RankReadingSection],
    recommendation: RecommendationSection,
) -> str:
    """Weigh the recommended rank, or else the smallest that has a held-out loss."""
    with_loss = [part for part in ranks if part.eval_loss is not None]
    if not with_loss:
        return tr("No rank has a held-out loss yet.")
    part = next((part for part in with_loss if part.rank == recommendation.efficient.rank), with_loss[0])
    reading = next(reading for reading in readings if reading.rank == part.rank)
    return " ".join(filter(None, (_gains(resolved, part, reading), _costs(reading, with_loss[-1].rank))))


def _gains(resolved: ResolvedStudy | None, part: RankSection, reading: RankReadingSection) -> str:
    parts = []
    if resolved and part.adapter_bytes is not None and reading.trainable_share is not None:
        parts.append(
            tr(
                "Gained at rank {rank}: {share:.2%} of the base model's {parameters} parameters are trained, and the "
                "adapter takes {size}.",
                rank=part.rank,
                share=reading.trainable_share,
                parameters=format_count(resolved.base_parameters),
                size=format_bytes(part.adapter_bytes),
            )
        )
    if resolved and reading.training_bytes is not None and part.training_state_bytes is not None:
        parts.append(
            tr(
                "Frozen base, adapter, gradient and optimizer take {size}; full fine-tuning would take {full}, a "
                "prediction from {bytes} bytes a parameter (float32 with AdamW). Activations come on top of both.",
                size=format_bytes(reading.training_bytes),
                full=format_bytes(FULL_BYTES * resolved.base_parameters),
                bytes=FULL_BYTES,
            )
        )
    if part.eval_loss is not None and reading.loss_gained is not None:
        parts.append(_moved(part.eval_loss, reading.loss_gained))
    return " ".join(parts)


def _moved(loss: float, gained: float) -> str:
    change, before, after = nats(abs(gained)), nats(loss + gained), nats(loss)
    if gained > 0:
        return tr(
            "The held-out loss fell by {change} nats a token, from {before} to {after}.",
            change=change,
            before=before,
            after=after,
        )
    return tr(
        "The held-out loss rose by {change} nats a token, from {before} to {after}.",
        change=change,
        before=before,
        after=after,
    )


def _costs(reading: RankReadingSection, largest: int) -> str:
    unknown = tr("Full fine-tuning was not run, so what LoRA itself costs in loss is not known here.")
    if reading.excess_over_largest is None or reading.excess_over_largest_ci95 is None:
        return tr("Cost: {text}", text=lower_first(unknown))
    low, high = reading.excess_over_largest_ci95
    excess = interval(reading.excess_over_largest, low, high)
    cost = tr(
        "Cost: its held-out loss minus that of rank {largest}, the largest, is {excess}.",
        largest=largest,
        excess=excess,
    )
    return f"{cost} {unknown}"
