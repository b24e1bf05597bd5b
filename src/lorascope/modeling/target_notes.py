"""Notes on what of a model is not trained, although a reader might expect it."""

from collections.abc import Collection, Iterator, Sequence

from transformers import PreTrainedModel

from lorascope.message import Message
from lorascope.modeling.adapters.experts import expert_parameters, parameter_endings
from lorascope.modeling.targets import Reach, adaptable, name_endings, query_key_value
from lorascope.spec.fields.lora import ALL_LINEAR, split_expert
from lorascope.spec.schema import StudySpec

_MANY = 8
"""More names of layers are not listed."""


def target_notes(model: PreTrainedModel, spec: StudySpec, targets: Sequence[str], reach: Reach) -> Iterator[Message]:
    """Say which layers have no adapter, and which part of the loss is left out.

    Args:
        model: the plain base.
        spec: a study with one set of targets.
        targets: the layers that get adapters.
        reach: which layers tokens pass and PEFT loads.
    """
    (target_modules,), linear = spec.target_sets, adaptable(model)
    chosen = None if target_modules is not None else query_key_value(linear)
    if target_modules is None and chosen is None:
        yield Message("targets.no_query_key_value", layers=_shown(targets))
    if target_modules in {None, ALL_LINEAR}:
        lost = [name for name in linear if name in reach.unloadable and (chosen is None or name in chosen)]
        if lost:
            yield Message("targets.unloadable", count=len(lost), layers=_shown(lost))
        rest = [name for name in linear if name in reach.partly or name not in reach.wholly]
        if target_modules is not None and rest:
            yield Message("targets.not_passed", count=len(rest), layers=_shown(rest))
        yield from _expert_notes(model, {split_expert(name)[0] for name in targets})
    if getattr(model.config.get_text_config(), "output_router_logits", False):
        yield Message("note.no_router_loss")


def _expert_notes(model: PreTrainedModel, adapted: Collection[str]) -> Iterator[Message]:
    known = expert_parameters(model)
    stored = [name for name, parameter in model.named_parameters() if parameter.dim() == 3 and "experts" in name]
    possible = [name for name in known if name not in adapted]
    if possible:
        yield Message("targets.experts", parameters=parameter_endings(possible))
    if any(name not in known for name in stored):
        yield Message("targets.no_experts", layer=type(model).__name__)


def _shown(names: Sequence[str]) -> tuple[str, ...]:
    endings = name_endings(names)
    return endings if len(endings) <= _MANY else (*endings[:_MANY], "...")
