"""Caution about saved adapters with which PEFT computes another loss than the study."""

from lorascope.analysis.findings import Findings
from lorascope.analysis.study_data import StudyData
from lorascope.analysis.verdict.schema import CautionSection
from lorascope.message import Message
from lorascope.records import EvalRecord, PeftCheck

_ROUNDING = {"float64": 1e-5, "float32": 1e-3, "bfloat16": 3e-2, "float16": 1e-2}
"""Largest share of the rows' nats by which rounding moves them."""
_TIMES_BASE = 4.0
"""However much the base's own nats differ, an adapter's may differ by this many times as much."""


def adapter_differs(findings: Findings) -> CautionSection | None:
    """Compare the rows' nats with those of the last evaluation."""
    wrong = tuple(found for check in findings.data.peft_checks if (found := _wrong(findings.data, check)) is not None)
    if not wrong:
        return None
    return CautionSection(kind="adapter_differs", text=(Message("caution.adapter_differs", trials=wrong),))


def _wrong(data: StudyData, check: PeftCheck) -> Message | None:
    if check.error is not None:
        return Message("caution.adapter_refused", trial=check.trial_id, error=check.error)
    if check.layers_left_out:
        return Message("caution.adapter_layers_left_out", trial=check.trial_id, layers=check.layers_left_out)
    evaluations = data.evaluations.get(check.trial_id, ())
    if data.resolved is None or not evaluations:
        return None
    base = _apart(evaluations[0], check.rows, check.base_nats) if evaluations[0].step == 0 else 0.0
    last = evaluations[-1]
    if _apart(last, check.rows, check.nats) <= max(_ROUNDING[data.resolved.dtype], _TIMES_BASE * base):
        return None
    targets = sum(last.example_target_tokens[row] for row in check.rows)
    reported = sum(last.example_nats[row] for row in check.rows)
    return Message(
        "caution.adapter_loss", trial=check.trial_id, found=sum(check.nats) / targets, reported=reported / targets
    )


def _apart(record: EvalRecord, rows: tuple[int, ...], nats: tuple[float, ...]) -> float:
    """Return the difference of the rows' nats, as a share of those of the evaluation.

    Together: in 16 bits a token of one row may be routed to another expert.
    """
    reported = sum(record.example_nats[row] for row in rows)
    return abs(sum(nats) - reported) / max(reported, 1e-9)
