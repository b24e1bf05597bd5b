"""Fields of the adapters."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from lorascope.spec.fields.types import (
    Count,
    Fields,
    Positive,
    contradiction,
    count_values,
    no_duplicates,
)

AlphaRule = Literal["fixed", "rslora", "proportional"]


class LoraFields(Fields):
    """Which adapters are compared."""

    ranks: Annotated[tuple[Count, ...], Field(min_length=1), AfterValidator(no_duplicates)] = (8, 128, 256)
    """LoRA ranks to compare."""

    alpha_rule: AlphaRule = "fixed"
    """How alpha and the scale follow the rank r: ``fixed`` (same alpha, scale alpha/r), ``rslora`` (same alpha, scale
    alpha/sqrt(r)), ``proportional`` (alpha = ``alpha_over_rank`` * r, same scale for all ranks)."""

    lora_alpha: Positive | Annotated[tuple[Positive, ...], Field(min_length=1)] = 32.0
    """Alpha under the rules ``fixed`` and ``rslora``: one for all ranks, or a list with one per rank in their order."""

    alpha_over_rank: Positive = 4.0
    """Alpha divided by the rank under the rule ``proportional``."""

    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout probability of an adapter's inputs in training."""

    target_modules: tuple[str, ...] | str | None = "all-linear"
    """Layers to adapt, as in PEFT: name suffixes, one regular expression, or ``all-linear``, which is every linear
    layer but the output head. ``null``: the query, key and value projections."""

    @model_validator(mode="after")
    def _alpha_and_its_rule_agree(self) -> Self:
        alphas, proportional = self.lora_alpha, self.alpha_rule == "proportional"
        if proportional and alphas != LoraFields.model_fields["lora_alpha"].default:
            raise contradiction(
                "lora_alpha is given, but under alpha_rule proportional alpha is alpha_over_rank * r",
                "leave lora_alpha out, or choose alpha_rule fixed or rslora",
            )
        if not proportional and self.alpha_over_rank != LoraFields.model_fields["alpha_over_rank"].default:
            raise contradiction(
                f"alpha_over_rank is given, but alpha_rule {self.alpha_rule} takes lora_alpha",
                "leave alpha_over_rank out, or choose alpha_rule proportional",
            )
        if isinstance(alphas, tuple) and len(alphas) != len(self.ranks):
            raise contradiction(
                f"lora_alpha has {count_values(len(alphas))}, and ranks has {count_values(len(self.ranks))}",
                "give one alpha for all ranks, or one for each rank",
            )
        return self
