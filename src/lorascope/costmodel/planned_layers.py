"""Layers that a run would adapt, from a model without weights."""

from dataclasses import replace

from transformers import PreTrainedModel
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

from lorascope.engine.reference import reach_of_shapes
from lorascope.message import Message
from lorascope.modeling.adapters.peft_check import unloadable_layers, without_weights
from lorascope.modeling.target_selection import select_sets
from lorascope.modeling.targets import adaptable
from lorascope.spec.schema import StudySpec


def planned_sets(model: PreTrainedModel, spec: StudySpec) -> tuple[dict[str, tuple[str, ...]], list[Message]]:
    """Return the layers that a run would adapt, from a model without weights, and what is not known of them.

    Returns:
        The layers of each set of target modules by its name, as ``select_sets`` does; and notes.
    """
    reach = reach_of_shapes(model)
    if reach is None:
        return select_sets(model, spec), [Message("plan.layers_unknown")]
    passed = [name for name in adaptable(model) if name in reach.wholly]
    lost = unloadable_layers(without_weights(model), passed) if _may_be_unloadable(model) else frozenset()
    return select_sets(model, spec, replace(reach, unloadable=lost)), []


def _may_be_unloadable(model: PreTrainedModel) -> bool:
    """Return False for models whose names PEFT keeps and that have neither experts nor convolutions over states.

    Asking PEFT itself takes seconds.
    """
    renamed = get_checkpoint_conversion_mapping(model.config.model_type)
    return bool(renamed) or any(parameter.dim() == 3 for parameter in model.parameters())
