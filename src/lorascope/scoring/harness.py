"""Tasks of EleutherAI's harness, the library lm-eval: found, loaded and tried before anything is trained."""

import difflib
import hashlib
import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorascope.errors import InputError
from lorascope.records import HarnessTask

FEWSHOT_SEED = 1234
"""The harness's own default: every adapter sees the same examples before a document."""
_TOKEN_BYTES = 4.0
_NEW_TOKENS = 256
"""The harness's own default of the most tokens that an answer has."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LoadedTask:
    """A task with its documents."""

    record: HarnessTask
    task: Any
    """The harness's own object."""


def load_tasks(names: Sequence[str], limit: int | None) -> tuple[LoadedTask, ...]:
    """Load the tasks of these names, groups as their tasks, and build their requests.

    Args:
        names: of the harness, or paths of tasks' YAML files.
        limit: the most documents of each task; None: all.

    Raises:
        InputError: lm-eval is not installed, a name or file is no task, its documents cannot be loaded, or it has no
            metric of each document from 0 to 1.
    """
    if not names:
        return ()
    try:
        from lm_eval.tasks import TaskManager  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise InputError(
            f"lm_eval {names[0]} needs lm-eval, which is not installed", remedy="pip install 'lorascope[lm-eval]'"
        ) from error
    for name in names:
        if is_file(name) and not Path(name).expanduser().is_file():
            raise InputError(
                f"lm_eval names {name}, which is no file", remedy=f"check the path; it starts from {Path.cwd()}"
            )
    with silent_harness():
        groups = {name: _group_of(name) for name in names if is_file(name)}
        manager = TaskManager(  # a file that is one task needs no other
            include_path=[Path(name).expanduser().parent for name, group in groups.items() if group] or None,
            include_defaults=len(groups) < len(names) or any(groups.values()),
        )
        return tuple(
            LoadedTask(record=_record(name, one, limit), task=one)
            for name in names
            for one in _load(manager, name, groups.get(name) or name).values()
        )


def is_file(name: str) -> bool:
    """Return True for the path of a YAML file, False for a name of the harness."""
    return name.endswith((".yaml", ".yml"))


def _group_of(name: str) -> str | None:
    """Return the name of the group that a file holds, which the harness finds by its folder; None for a task."""
    found = re.search(r"^group:\s*(\S+)", Path(name).expanduser().read_text("utf-8", "replace"), re.MULTILINE)
    return found[1].strip("'\"") if found else None


def _load(manager: Any, given: str, name: str) -> Mapping[str, Any]:  # noqa: ANN401
    """Load the tasks of a name, or of the file that the study gives."""
    if not is_file(given) and name not in manager.task_index:
        close = difflib.get_close_matches(name, manager.all_tasks, n=3)
        meant = f"did you mean {', '.join(close)}? " if close else ""
        raise InputError(
            f"lm_eval {name}: the harness has no task or group of this name",
            remedy=f"{meant}`lm-eval ls tasks` lists them; a task of your own is named by its YAML file",
        )
    try:
        tasks: Mapping[str, Any] = manager.load(name)["tasks"]
    except Exception as error:
        raise InputError(
            f"lm_eval {given} cannot be loaded ({_first_line(error)})",
            remedy="correct its YAML file and the paths of its data, which start from the working directory"
            if is_file(given)
            else "its documents are fetched from the hub: check the connection, or what else the task needs",
        ) from error
    if not tasks:
        raise InputError(f"lm_eval {given} holds no task", remedy="name a task, or a group that has some")
    return tasks


def _record(given: str, task: Any, limit: int | None) -> HarnessTask:  # noqa: ANN401
    """Build a task's requests and describe them. Raises InputError where ranks cannot be compared by them."""
    name = task.task_name
    if getattr(task, "UNSAFE_CODE", False) or getattr(task, "MULTIMODAL", False):
        what = "runs code that a model writes" if getattr(task, "UNSAFE_CODE", False) else "needs more than text"
        raise InputError(f"lm_eval {name} {what}", remedy="leave it out; --metric python_tests runs code confined")
    prepare(task)
    try:
        task.build_all_requests(limit=limit)
        metric = _first_metric(task)
    except Exception as error:
        raise InputError(
            f"lm_eval {name} cannot be used ({_first_line(error)})", remedy="correct the task, or leave it out"
        ) from error
    if metric is None:
        raise InputError(
            f"lm_eval {name} has no metric that gives each document 0 to 1, higher being better",
            remedy="choose a task with acc, acc_norm, exact_match or the like",
        )
    requests = task.instances
    texts = [part for one in requests for part in one.args if isinstance(part, str)]
    kwargs = [part for one in requests for part in one.args if isinstance(part, dict)]
    whole = [[one.request_type, one.args, one.doc] for one in requests]
    own = Path(given).expanduser().read_text("utf-8") if is_file(given) else ""
    text = json.dumps([own, whole], default=str, ensure_ascii=False)
    return HarnessTask(
        given=given,
        task=name,
        metric=metric,
        documents=len({one.doc_id for one in requests}),
        limit=limit,
        tokens=sum(len(part.encode(errors="replace")) for part in texts) / _TOKEN_BYTES,
        new_tokens=sum(int(one.get("max_gen_toks", _NEW_TOKENS)) for one in kwargs),
        fingerprint=hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest(),
    )


def prepare(task: Any) -> None:  # noqa: ANN401
    """Make the examples before a task's documents those that every evaluation of it has."""
    task.set_fewshot_seed(seed=FEWSHOT_SEED)
    if task.get_config("num_fewshot") is None:
        task.set_config(key="num_fewshot", value=0)


def _first_metric(task: Any) -> str | None:  # noqa: ANN401
    """Return the task's first metric that gives a document a number from 0 to 1, tried on an empty answer."""
    first = [one for one in task.instances if one.doc_id == task.instances[0].doc_id]
    empty = [(-1.0, False) if one.request_type == "loglikelihood" else "" for one in first]
    if any(one.request_type == "loglikelihood_rolling" for one in first):
        return None
    found = task.process_results(first[0].doc, empty)
    better = task.higher_is_better()
    order = [*(name for name in better if name in found), *(name for name in found if name not in better)]
    return next((name for name in order if better.get(name, True) and _is_score(found[name])), None)


def _is_score(value: object) -> bool:
    try:
        return not isinstance(value, str) and 0 <= float(value) <= 1  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300] if str(error).strip() else ''}"


@contextmanager
def silent_harness() -> Iterator[None]:
    """Keep the harness's progress bars, notices and warnings off the screen; errors still raise."""
    from lm_eval.api.task import tqdm  # noqa: PLC0415 - an extra

    make, logger = tqdm.__init__, logging.getLogger("lm_eval")
    level = logger.level

    def make_silent(self: object, *arguments: object, **options: object) -> None:
        make(self, *arguments, **options | {"disable": True})

    tqdm.__init__ = make_silent
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        tqdm.__init__ = make
