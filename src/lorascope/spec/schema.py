"""Schema of a study: one frozen object, validated once at the edge and passed whole.

Names of PEFT, Transformers and TRL keep their meaning. The text under a field is its only documentation: ``--help`` and
the reference page are generated from it.
"""

from lorascope.spec.fields.answer import AnswerFields
from lorascope.spec.fields.compute import ComputeFields
from lorascope.spec.fields.lora import LoraFields
from lorascope.spec.fields.rows import RowFields
from lorascope.spec.fields.training import TrainingFields

ANALYSIS_FIELDS = frozenset(
    {"tolerance", "convergence_band", "max_memory", "max_seconds", "max_adapter_mb", "prefer", "cost"}
)
"""Fields that change analysis or measurement but no training; a finished study accepts new values."""


class StudySpec(ComputeFields, AnswerFields, TrainingFields, LoraFields, RowFields):
    """Everything that a study depends on; equal specs give equal results on one machine.

    pydantic orders the fields from the last base to the first: rows, adapters, training, answer, computation.
    """
