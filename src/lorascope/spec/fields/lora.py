"""Fields of the adapters."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Literal, Self, TypeVar, cast

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from lorascope.spec.fields.types import (
    Count,
    Fields,
    NonEmpty,
    Positive,
    contradiction,
    no_duplicates,
)

Value = TypeVar("Value")
Patterns = TypeVar("Patterns", bound=Collection[str] | None)
AlphaRule = Literal["fixed", "rslora", "proportional"]
ExpertRankRule = Literal["same", "per-expert-share"]
ALL_LINEAR = "all-linear"
TargetSet = tuple[str, ...] | str
Targets = TargetSet | None
NAME = re.compile(r"[\w.-]+")
"""The end of a layer's name; other text is a regular expression."""
BlockNumber = Annotated[int, Field(ge=0, strict=True)]
FROM_BASE = re.compile(r"pissa(_niter_[1-9]\d*)?|olora")
"""Initial values that PEFT makes from the base's weights, and subtracts from them."""
_EXPERT = re.compile(r"(.+)\[(\d+)\]")
_REFUSED_INITIALISATIONS = {
    "corda": "it needs activations of a run over the rows before training",
    "eva": "it needs activations of a run over the rows before training, which give each layer its own rank",
    "loftq": "it makes another base for each rank, and all ranks share one",
    "lora_ga": "it needs gradients of the base's weights before training",
    "orthogonal": "its B is not zero at first, and nothing is subtracted for it",
    "false": "its B is not zero at first, so that training does not begin at the base model",
}


def _is_initialisation(given: bool | str) -> bool | str:
    word = str(given).lower()
    if word in {"true", "default"}:
        return True
    if word in _REFUSED_INITIALISATIONS:
        raise contradiction(
            f"init_lora_weights {word} is not supported: {_REFUSED_INITIALISATIONS[word]}",
            "choose true, gaussian, pissa, pissa_niter_16 or olora",
        )
    if word != "gaussian" and not FROM_BASE.fullmatch(word):
        raise PydanticCustomError("initialisation", "not a way to initialise adapters", {})
    return word


def _names_sets(given: Iterable[object]) -> bool:
    """Return True for a list of sets: an item is a set that no single layer's name can be."""
    return any(not isinstance(one, str) or one == ALL_LINEAR or not NAME.fullmatch(one) for one in given)


def _read_sets(given: object) -> object:
    """Read a list of names as one set, and a list of sets as such, in which one name is a set too."""
    if not isinstance(given, list | tuple) or not _names_sets(given):
        return given
    sets = tuple((one,) if isinstance(one, str) and NAME.fullmatch(one) and one != ALL_LINEAR else one for one in given)
    sets = tuple(ALL_LINEAR if one in ([ALL_LINEAR], (ALL_LINEAR,)) else one for one in sets)
    return sets[0] if len(sets) == 1 else sets


def _no_set_twice(given: Value) -> Value:
    if isinstance(given, tuple) and _names_sets(given):
        sets = [one if isinstance(one, str) else frozenset(one) for one in given]
        repeated = next((one for place, one in enumerate(given) if sets.index(sets[place]) < place), None)
        if repeated is not None:
            shown = repeated if isinstance(repeated, str) else ",".join(repeated)
            raise contradiction(f"target_modules names the set {shown} more than once", "give each set once")
    return given


def _is_expression(targets: Targets) -> bool:
    return isinstance(targets, str) and targets != ALL_LINEAR


def _compiles(patterns: Patterns) -> Patterns:
    given: Collection[str] | None = patterns
    keys = [given] if isinstance(given, str) else given or ()
    for key in keys:
        try:
            re.compile(key)
        except re.error as error:
            raise contradiction(
                f"the pattern {key!r} is not a regular expression ({error})", "give name endings such as q_proj"
            ) from None
    return patterns


def _listed(ranks: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(ranks)))


def split_expert(layer: str) -> tuple[str, int | None]:
    """Return parameter and number of an expert, which is named ``PARAMETER[EXPERT]``; another layer's name and None."""
    found = _EXPERT.fullmatch(layer)
    return (layer, None) if found is None else (found.group(1), int(found.group(2)))


def pattern_value(patterns: Mapping[str, Value], layer: str, default: Value) -> Value:
    """Return the value of the first pattern that matches a layer's name up to its end, as PEFT does.

    All experts of a parameter have the value of its name.
    """
    name, _ = split_expert(layer)
    return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", name)), default)


class LoraFields(Fields):
    """Which adapters are compared."""

    ranks: Annotated[tuple[Count, ...], Field(min_length=1), AfterValidator(no_duplicates)] = (8, 128, 256)
    """LoRA ranks to compare."""

    alpha_rule: AlphaRule = "fixed"
    """How alpha and the scale follow the rank r: ``fixed`` (same alpha, scale alpha/r), ``rslora`` (same alpha, scale
    alpha/sqrt(r)), ``proportional`` (alpha = ``alpha_over_rank`` * r, same scale for all ranks)."""

    lora_alpha: (
        Positive
        | Annotated[tuple[Positive, ...], Field(min_length=1)]
        | Annotated[dict[Annotated[int, Field(ge=1)], Positive], Field(min_length=1)]
    ) = 32.0
    """Alpha under the rules ``fixed`` and ``rslora``: one for all ranks; several to try for every rank, of which each
    is compared at its best, as with learning rates; or one for each rank, as ``{8: 16, 64: 32}`` in a file and
    ``8=16,64=32`` as a flag."""

    alpha_over_rank: Positive = 4.0
    """Alpha divided by the rank under the rule ``proportional``."""

    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout probability of an adapter's inputs in training."""

    target_modules: Annotated[
        Targets | tuple[TargetSet, ...], BeforeValidator(_read_sets), AfterValidator(_no_set_twice)
    ] = "all-linear"
    """Layers to adapt, as in PEFT: name suffixes, one regular expression, or ``all-linear``, which is every linear
    layer but the output head. ``null``: the query, key and value projections. Several sets are compared with each
    other, each with all ranks: ``[[q_proj, v_proj], all-linear]`` in a file, the flag once for each."""

    target_parameters: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Parameters of experts to adapt, as in PEFT: suffixes of their names such as ``experts.gate_up_proj``, where a
    mixture-of-experts layer stores a weight of all its experts in one parameter. Each expert gets an A and a B. To
    adapt experts alone, give an empty list of ``target_modules`` in the study file."""

    expert_rank_rule: ExpertRankRule = "same"
    """Rank of an expert's adapter: ``same`` (the rank itself, as in PEFT) or ``per-expert-share`` (the rank divided by
    the number of experts that a token passes, at least 1), under the same alpha rule. Saved as a ``rank_pattern``."""

    exclude_modules: tuple[str, ...] | str | None = None
    """Layers to leave out of ``target_modules``, as in PEFT: name suffixes, or one regular expression."""

    layers_to_transform: Annotated[tuple[BlockNumber, ...], AfterValidator(no_duplicates)] | None = None
    """Numbers of the blocks to adapt, as in PEFT, counted from 0. Default: all."""

    layers_pattern: Annotated[tuple[str, ...] | str | None, AfterValidator(_compiles)] = None
    """Names of the lists of blocks that ``layers_to_transform`` counts in, as in PEFT. Default: the first number in a
    layer's name is that of its block."""

    rank_pattern: Annotated[dict[str, Count], AfterValidator(_compiles)] = {}  # noqa: RUF012 - pydantic copies it
    """Layers with one rank of their own in all adapters, as in PEFT: name suffixes or regular expressions to ranks."""

    alpha_pattern: Annotated[dict[str, Positive], AfterValidator(_compiles)] = {}  # noqa: RUF012 - pydantic copies it
    """Layers with an alpha of their own, as in PEFT: name suffixes or regular expressions to alphas."""

    modules_to_save: Annotated[tuple[NonEmpty, ...], Field(min_length=1)] | None = None
    """Modules that each trial trains whole beside its adapter, as in PEFT, by the ends of their names: the input
    embeddings or the output head, such as ``embed_tokens,lm_head``. Default: none."""

    init_lora_weights: Annotated[bool | str, AfterValidator(_is_initialisation)] = True
    """Initial values of the adapters, as in PEFT: ``true`` (uniform A, B zero), ``gaussian``, and from the base's
    weights, with PEFT installed, ``pissa``, ``pissa_niter_16`` (with a faster SVD of 16 iterations) or ``olora``. The
    base stays as it is: what those subtract from its weights is subtracted from each adapter's output, and a saved
    adapter has twice the rank, as PEFT converts it."""

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
        if isinstance(alphas, dict) and alphas.keys() != set(self.ranks):
            raise contradiction(
                f"lora_alpha names the ranks {_listed(alphas)}, and ranks are {_listed(self.ranks)}",
                "give one alpha for all ranks, or one for each rank",
            )
        if isinstance(alphas, tuple) and len(set(alphas)) < len(alphas):
            repeated = next(alpha for alpha in alphas if alphas.count(alpha) > 1)
            raise contradiction(f"lora_alpha names {repeated:g} more than once", "give each alpha once")
        return self

    @model_validator(mode="after")
    def _blocks_and_their_pattern_agree(self) -> Self:
        if self.layers_pattern and self.layers_to_transform is None:
            raise contradiction(
                "layers_pattern is given, but no blocks", "give their numbers in layers_to_transform, or leave it out"
            )
        if self.layers_to_transform is not None and any(map(_is_expression, self.target_sets)):
            raise contradiction(
                "layers_to_transform is given, but target_modules is a regular expression",
                "write the blocks into the expression, or give target_modules as a list of name endings",
            )
        return self

    @model_validator(mode="after")
    def _experts_take_plain_adapters(self) -> Self:
        if self.target_parameters is None:
            if self.expert_rank_rule != "same":
                raise contradiction(
                    f"expert_rank_rule is {self.expert_rank_rule}, but no parameters of experts are adapted",
                    "give target_parameters, such as experts.gate_up_proj, or leave it out",
                )
            return self
        if self.lora_dropout:
            raise contradiction(
                "target_parameters is given, and lora_dropout is not 0, which PEFT does not have for parameters",
                "set lora_dropout to 0, or leave target_parameters out",
            )
        if self.starts_from_base:
            raise contradiction(
                f"target_parameters is given, and init_lora_weights {self.init_lora_weights} is made for layers only",
                "leave init_lora_weights or target_parameters out",
            )
        return self

    @property
    def starts_from_base(self) -> bool:
        """Whether adapters begin with values made from the base's weights."""
        return FROM_BASE.fullmatch(str(self.init_lora_weights)) is not None

    @property
    def target_sets(self) -> tuple[Targets, ...]:
        """The sets of layers that are compared; one where ``target_modules`` is one."""
        given = self.target_modules
        return given if isinstance(given, tuple) and _names_sets(given) else (cast("Targets", given),)
