"""Schema of a study: one frozen object, validated once at the edge and passed whole.

Names of PEFT, Transformers and TRL keep their meaning. The text under a field is its only documentation: ``--help`` and
the reference page are generated from it.
"""

from typing import Self

from pydantic import model_validator

from lorascope.spec.fields.answer import AnswerFields
from lorascope.spec.fields.compute import ComputeFields
from lorascope.spec.fields.lora import LoraFields
from lorascope.spec.fields.rows import RowFields
from lorascope.spec.fields.training import TrainingFields
from lorascope.spec.fields.types import contradiction

ANALYSIS_FIELDS = frozenset(
    {"tolerance", "convergence_band", "max_memory", "max_seconds", "max_adapter_mb", "prefer", "cost", "time_budget"}
    | {"report_to", "samples", "max_new_tokens", "sample_temperature", "metrics", "lm_eval", "lm_eval_limit"}
    | {"executor", "workers"}
)
"""Fields that change analysis, measurement, who is told or where trials train, but nothing that they learn; a finished
study accepts new values."""


class StudySpec(ComputeFields, AnswerFields, TrainingFields, LoraFields, RowFields):
    """Everything that a study depends on; equal specs give equal results on one machine.

    pydantic orders the fields from the last base to the first: rows, adapters, training, answer, computation.
    """

    @model_validator(mode="after")
    def _sequential_studies_compare(self) -> Self:
        if self.until_decided and len(self.ranks) == 1:
            raise contradiction(
                f"until_decided has nothing to decide with one rank ({self.ranks[0]})",
                "give two or more ranks, or leave it out",
            )
        if self.until_decided and len(self.target_sets) > 1:
            raise contradiction(
                f"until_decided decides between ranks, and target_modules has {len(self.target_sets)} sets",
                "study each set by itself, or leave until_decided out",
            )
        return self
