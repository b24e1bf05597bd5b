"""The Python interface: ``run``, ``plan`` and ``audit`` of ``lorascope``, with names or objects that are in memory."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias, cast

from lorascope.atomic import new_folder, write_whole
from lorascope.cli.run import default_folder, read_fields
from lorascope.errors import InputError
from lorascope.paths import cache_folder
from lorascope.run.trackers import Tracker
from lorascope.spec.errors import did_you_mean

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from lorascope.analysis.adapters.audit_schema import AdapterAudit
    from lorascope.costmodel.plan import StudyPlan
    from lorascope.report.study import Study

    Rows: TypeAlias = str | Path | Dataset | Sequence[Mapping[str, Any]]
    Model: TypeAlias = str | Path | PreTrainedModel

_BATCH = 1000


def run(
    study: str | Path | None = None,
    /,
    *,
    model: "Model | None" = None,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    train_dataset: "Rows | None" = None,
    eval_dataset: "Rows | None" = None,
    out: str | Path | None = None,
    trackers: Sequence[Tracker] = (),
    progress: bool = True,
    **fields: object,
) -> "Study":
    """Fine-tune every rank on the same data over one frozen model, compare them, and keep each adapter.

    Args:
        study: a study file, a preset or a study's folder, whose fields the others override.
        model: a name or folder, or a Transformers model, of which a copy is kept in the cache folder.
        tokenizer: that of a model object.
        train_dataset: a name or path, or rows: a ``datasets.Dataset`` or dictionaries, in any form that files may have.
        eval_dataset: held-out rows of the same kind; by default they are split off.
        out: folder of the study; one that exists is continued. Default: as for ``lorascope run``.
        trackers: told of everything as it happens; a method that a tracker lacks is an error.
        progress: show a table while the study runs, or lines where there is no terminal.
        **fields: of the study file, such as ``ranks=[8, 64]``, ``learning_rates="auto"``, ``time_budget="20min"``.

    Returns:
        The finished study, with ``summary``, ``charts``, ``frame()`` and ``best_adapter()``.

    Raises:
        InputError: something given cannot be used; nothing was started.
        Interrupted: a signal came; the same call continues.
    """
    began = time.monotonic()
    own = _named(model, tokenizer, train_dataset, eval_dataset)
    name, spec = read_fields(None if study is None else str(study), {**own, **fields})
    folder = Path(out) if out is not None else default_folder(name, spec)
    from lorascope.run.study import run_study  # noqa: PLC0415 - loads Torch
    from lorascope.run.trackers.followers import follow_run  # noqa: PLC0415 - the same

    with ExitStack() as stack:
        shown: list[Any] = [stack.enter_context(_view())] if progress else []
        note = shown[0].note if shown else _unheard
        followers = stack.enter_context(follow_run(spec.report_to, folder, note, note))
        told = [*shown, *trackers, followers.tracker]
        run_study(spec, folder, trackers=told, command=_call(study, {**own, **fields}), began=began)
        found = _reported(folder)
        followers.result()
    return found


def plan(
    study: str | Path | None = None,
    /,
    *,
    model: str | Path | None = None,
    train_dataset: str | Path | None = None,
    **fields: object,
) -> "StudyPlan":
    """Predict parameters, memory and time of every rank from the model's configuration; loads no weights.

    Args:
        study: as for ``run``.
        model: a name or folder.
        train_dataset: a name or path.
        **fields: as for ``run``; ``device`` may name a GPU, such as "L4".

    Raises:
        InputError: something given cannot be used.
    """
    _, spec = read_fields(None if study is None else str(study), {**_named(model, None, train_dataset, None), **fields})
    from lorascope.costmodel.plan import plan_study  # noqa: PLC0415 - loads Torch

    return plan_study(spec)


def audit(
    adapter: str | Path, /, *, model: str | Path | None = None, dataset: "Rows | None" = None, **fields: object
) -> "AdapterAudit":
    """Measure how much of a LoRA adapter's rank is used, on held-out rows.

    Args:
        adapter: folder of an adapter in PEFT's format.
        model: its base, by default the one that it names.
        dataset: a name or path, or rows, as for ``run``; by default, of an adapter in a study's folder, the study's
            held-out rows.
        **fields: flags of ``lorascope audit``, such as ``tolerance=0.01``, ``samples=0``.

    Raises:
        InputError: adapter, base or rows cannot be used, or do not belong together.
    """
    from lorascope.cli.flags import AUDITED  # noqa: PLC0415 - only for those who audit
    from lorascope.run.audit import audit_adapter  # noqa: PLC0415 - loads Torch

    unknown = next((name for name in fields if name not in AUDITED), None)
    if unknown is not None:
        hint = did_you_mean(unknown, sorted(AUDITED))
        raise InputError(f"{unknown} is not a setting of an audit", remedy=hint or "see lorascope audit --help-all")
    return audit_adapter(Path(adapter), {**_named(model, None, dataset, None), **fields})


def _call(study: str | Path | None, given: Mapping[str, object]) -> str:
    """Write the call that repeats a study, objects by the names under which they are kept."""
    arguments = [f"{name}={value!r}" for name, value in given.items()]
    return f"lorascope.run({', '.join([repr(str(study)), *arguments] if study is not None else arguments)})"


def _unheard(text: str) -> None:
    del text


def _view() -> Any:  # noqa: ANN401 - one of two views
    from rich.console import Console  # noqa: PLC0415 - only for those who look

    from lorascope.cli.live import LiveView  # noqa: PLC0415
    from lorascope.cli.plain import PlainView  # noqa: PLC0415

    console = Console()
    return LiveView(console) if console.is_terminal or console.is_jupyter else PlainView(cast("TextIO", console.file))


def _reported(folder: Path) -> "Study":
    from lorascope.report.study import Study  # noqa: PLC0415 - loads charts

    found = Study.open(folder)
    found.report()
    return found


def _named(
    model: "Model | None",
    tokenizer: "PreTrainedTokenizerBase | None",
    train_dataset: "Rows | None",
    eval_dataset: "Rows | None",
) -> dict[str, object]:
    """Return the study's fields for model and rows; objects are written to the cache folder, under their content."""
    found: dict[str, object] = {}
    if tokenizer is not None and (model is None or isinstance(model, str | Path)):
        raise InputError("a tokenizer is given without a model object", remedy="give both, or the model's name alone")
    if isinstance(model, str | Path):
        found["model"] = str(model)
    elif model is not None:
        found["model"] = str(_kept_model(model, tokenizer))
    if train_dataset is None and eval_dataset is not None:
        raise InputError("eval_dataset is given without train_dataset", remedy="give both")
    if isinstance(train_dataset, str | Path):
        if eval_dataset is not None:
            raise InputError(
                "train_dataset is a name, and eval_dataset is given beside it",
                remedy="give rows for both, or a name and eval_split",
            )
        found["dataset"] = str(train_dataset)
    elif train_dataset is not None:
        found |= _kept_rows(train_dataset, eval_dataset)
    return found


def _kept_model(model: Any, tokenizer: Any) -> Path:  # noqa: ANN401 - whatever a user gives
    from transformers import PreTrainedModel, PreTrainedTokenizerBase  # noqa: PLC0415 - loads Torch

    from lorascope.modeling.load import hash_weights, save_model  # noqa: PLC0415 - the same

    if not isinstance(model, PreTrainedModel):
        raise InputError(
            f"model is a {type(model).__name__}",
            remedy="give a name, a folder or a Transformers model without adapters",
        )
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise InputError("a model object has no tokenizer beside it", remedy="give its tokenizer as well")
    if getattr(model, "peft_config", None) or any("lora_" in name for name, _ in model.named_parameters()):
        raise InputError("the model has adapters in it", remedy="give the base model that they were made for")
    if any(parameter.is_meta for parameter in model.parameters()):
        raise InputError("the model has no weights: they are on the device meta", remedy="load them first")
    if getattr(model, "is_quantized", False):
        raise InputError("the model is quantised in memory", remedy="give its name, and quantize")
    identity = f"{hash_weights(model)} {model.config.to_json_string()} {tokenizer}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    target = cache_folder() / "objects" / f"{model.config.model_type}-{digest}"
    if not target.is_dir():
        with new_folder(target, derived=True) as folder:
            save_model(model, tokenizer, folder)
    return target


def _kept_rows(train: Any, held_out: Any) -> dict[str, object]:  # noqa: ANN401 - whatever a user gives
    from datasets import Dataset  # noqa: PLC0415 - takes long

    parts = {"train": train} if held_out is None else {"train": train, "test": held_out}
    for name, rows in parts.items():
        lines: object = rows if isinstance(rows, Sequence) else None
        if not isinstance(rows, Dataset) and not (lines and all(isinstance(row, Mapping) for row in rows)):
            raise InputError(
                f"the rows of {name} are a {type(rows).__name__}",
                remedy="give a datasets.Dataset, a list of dictionaries, or a name",
            )
    (cache_folder() / "objects").mkdir(parents=True, exist_ok=True)
    if held_out is None and not isinstance(train, Dataset):
        return {"dataset": str(_kept_lines(train))}
    sets = {name: rows if isinstance(rows, Dataset) else Dataset.from_list(list(rows)) for name, rows in parts.items()}
    return {"dataset": str(_kept_sets(sets)), **({} if held_out is None else {"eval_split": "test"})}


def _kept_lines(rows: Sequence[Mapping[str, Any]]) -> Path:
    """Keep rows as lines of JSON, which hold no keys of other rows."""
    lines = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    target = cache_folder() / "objects" / f"rows-{hashlib.sha256(lines.encode()).hexdigest()[:16]}.jsonl"
    if not target.is_file():
        write_whole(target, lines, derived=True)
    return target


def _kept_sets(sets: "Mapping[str, Dataset]") -> Path:
    from datasets import DatasetDict  # noqa: PLC0415 - takes long

    digest = hashlib.sha256()
    for name, rows in sets.items():
        digest.update(f"{name} {rows.features}".encode())
        for batch in rows.with_format("arrow").iter(batch_size=_BATCH):
            digest.update(repr(batch.to_pylist()).encode())
    target = cache_folder() / "objects" / f"rows-{digest.hexdigest()[:16]}"
    if not target.is_dir():
        with new_folder(target, derived=True) as aside:
            DatasetDict(dict(sets)).save_to_disk(str(aside))
    return target
