"""Yardsticks beside the loss: bits per byte, and how much the rows hold for each trained parameter."""

import math

from lorascope.analysis.study_data import StudyData
from lorascope.records import ResolvedStudy


def bits_per_byte(loss: float | None, resolved: ResolvedStudy | None) -> float | None:
    """Convert a held-out loss, in nats a token, to bits a byte of the targets' text; None where either is not known."""
    if loss is None or resolved is None or not resolved.eval_target_bytes:
        return None
    return loss / math.log(2) * resolved.eval_target_tokens / resolved.eval_target_bytes


def seen_target_tokens(data: StudyData) -> float | None:
    """Return the target tokens that a whole trial trains on; rows seen again hold nothing new, and count once."""
    if data.resolved is None or data.steps_per_epoch is None:
        return None
    return data.resolved.train_target_tokens * min(1.0, data.resolved.total_steps / data.steps_per_epoch)
