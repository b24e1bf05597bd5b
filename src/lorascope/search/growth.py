"""Growth of a study in its folder: more trials beside those that are there, which stay as they are."""

from collections.abc import Mapping

from lorascope.search.trials import differences
from lorascope.spec.schema import ANALYSIS_FIELDS, StudySpec

_AXES = ("ranks", "seeds", "learning_rates")


def continued(old: StudySpec, new: StudySpec) -> StudySpec:
    """Return the study that a folder is to hold, with the old one's ranks, seeds and rates before those added.

    The study's first seed stays the first: trials are named by it.

    Args:
        old: the study in the folder.
        new: the one that is asked for.
    """
    changes: dict[str, object] = {}
    for field in _AXES:
        before, after = getattr(old, field), getattr(new, field)
        if isinstance(before, tuple) and isinstance(after, tuple) and set(before) <= set(after):
            changes[field] = (*before, *(value for value in after if value not in before))
    return new.model_copy(update=changes)


def refusals(old: StudySpec, new: StudySpec) -> list[str]:
    """Return every difference that a folder cannot take, with the reason where the field is one that can grow.

    Args:
        old: the study in the folder.
        new: the one that is asked for, as ``continued`` returns it.
    """
    same = {field: getattr(new, field) for field in ANALYSIS_FIELDS}
    changed = differences(old.model_copy(update=same), new)
    reasons = (_refusal(old, new, text.partition(":")[0]) for text in changed)
    return [f"{text}{reason}" for text, reason in zip(changed, reasons, strict=True) if reason is not None]


def _refusal(old: StudySpec, new: StudySpec, field: str) -> str | None:
    """Return why a field cannot change so, empty where it never can; None where it can."""
    before, after = getattr(old, field), getattr(new, field)
    if field in _AXES:
        return _axis_refusal(old, field, before, after)
    if field == "lora_alpha" and isinstance(before, Mapping) and isinstance(after, Mapping):
        return None if before.items() <= after.items() else ""
    if field == "until_decided":
        return None if after else ", and its looks have been taken"
    if field == "eval_examples":
        return ", and its trials have trained on all other rows (--until-decided may add held-out rows)"
    return ""


def _axis_refusal(old: StudySpec, field: str, before: object, after: object) -> str | None:
    if old.until_decided:
        return ", and the chance of error of its looks is that of the study as it began"
    if not isinstance(before, tuple) or not isinstance(after, tuple):
        return ", and rates that are chosen automatically belong to the whole study"
    if missing := [value for value in before if value not in after]:
        return f", and it has trained {', '.join(map(str, missing))}: give those as well"
    if field == "learning_rates" and len(before) == 1:
        return ", and a study that began with one rate does not name its trials by it"
    return None
