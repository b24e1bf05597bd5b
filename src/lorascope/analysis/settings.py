"""Settings that all trials of a study have in common."""

from lorascope.analysis.adapters.usage import module_kind
from lorascope.analysis.settings_schema import SettingsSection
from lorascope.analysis.study_data import StudyData
from lorascope.units import DTYPE_BYTES


def settings_section(data: StudyData) -> SettingsSection:
    """Collect them from the study's fields and from what these led to."""
    spec, resolved = data.spec, data.resolved
    known = resolved is not None and (resolved.base_bytes is not None or resolved.dtype in DTYPE_BYTES)
    layers = resolved.target_modules if resolved else ()
    return SettingsSection(
        split=" + ".join(spec.for_each(spec.split)),
        eval_split=" + ".join(spec.for_each(spec.eval_split)) if spec.eval_split else None,
        max_length=spec.max_length,
        target_modules=tuple(dict.fromkeys(map(module_kind, layers))),
        lora_dropout=spec.lora_dropout,
        rows_per_step=data.rows_per_step,
        epochs=data.epochs,
        base_bytes=resolved.weight_bytes if resolved and known else None,
    )
