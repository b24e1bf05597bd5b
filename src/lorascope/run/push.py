"""Push a rank's adapter to the hub, with its model card and the study's report."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import EvalResult, HfApi, ModelCardData
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError: the hub's own client, by any version
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
)

from lorascope.analysis import StudySummary, summarize
from lorascope.analysis.summary import RankSection, SetSummary
from lorascope.errors import InputError, LorascopeError
from lorascope.modeling.adapters.stored_adapter import CONFIG, WEIGHTS
from lorascope.run.export import find_adapter
from lorascope.search.target_sets import find_set
from lorascope.spec.load import load_spec
from lorascope.store.folder import StudyFolder
from lorascope.text.model_card import model_card
from lorascope.text.tables.overview import short_name, title_of_study

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def push_adapter(
    folder: Path,
    rank: int,
    repo: str,
    *,
    private: bool = False,
    target_modules: str | None = None,
    base_model: str | None = None,
) -> str:
    """Upload the adapter of a rank in one commit, into a repository that is made where there is none; return its page.

    Args:
        folder: the study's folder, whose report has been written.
        rank: its adapter at the best learning rate is pushed.
        repo: ``USER/NAME``.
        private: of a repository that is made.
        target_modules: the set of target modules, where the study has several.
        base_model: hub id of the base, where the study's model is a folder or a file.

    Raises:
        InputError: there is no such study, rank or set, or no adapter yet; the base has no hub id; the name is not that
            of a repository, or of one that may not be written to; or the hub is switched off.
        LorascopeError: the hub cannot be reached or fails.
    """
    if not _HUB_ID.fullmatch(repo):
        raise InputError(f"{repo} cannot be the name of a repository", remedy="give USER/NAME")
    study = StudyFolder(folder)
    _, source = find_adapter(study, rank, target_modules)
    config = json.loads((source / CONFIG).read_text(encoding="utf-8"))
    base = base_model or str(config["base_model_name_or_path"])
    if Path(base).is_absolute():
        raise InputError(f"the model of the study is {base}, not one of the hub", remedy="give its id: --base-model")
    with TemporaryDirectory() as place:
        upload = Path(place)
        (upload / CONFIG).write_text(json.dumps({**config, "base_model_name_or_path": base}, indent=2), "utf-8")
        (upload / "README.md").write_text(_card(study, rank, target_modules, base=base, repo=repo), "utf-8")
        shutil.copy2(source / WEIGHTS, upload / WEIGHTS)
        for file in (study.report("html"), study.summary):
            shutil.copy2(file, upload / file.name)
        with _hub_errors(repo):
            api = HfApi(library_name="lorascope")
            page = api.create_repo(repo, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo, folder_path=upload, commit_message=f"LoRA adapter of rank {rank}")
    return str(page)


def _card(study: StudyFolder, rank: int, target_modules: str | None, *, base: str, repo: str) -> str:
    summary, spec = summarize(study.path), load_spec(study.spec, {})
    part = next(one for one in _set_of(summary, find_set(spec, target_modules)).ranks if one.rank == rank)
    datasets = [name for name in spec.dataset_names if _HUB_ID.fullmatch(name) and not Path(name).exists()]
    data = ModelCardData(
        base_model=base,
        datasets=datasets or None,
        library_name="peft",
        pipeline_tag="text-generation",
        tags=["lora", "lorascope", f"base_model:adapter:{base}"],
        model_name=repo.rpartition("/")[2],
        eval_results=_results(summary, part, datasets) or None,
    )
    return f"---\n{data.to_yaml()}\n---\n\n{model_card(summary, part, base=base, repo=repo)}"


def _set_of(summary: StudySummary, name: str) -> SetSummary:
    """Return the part of a summary that is about a set of target modules."""
    sets = summary.target_sets.sets if summary.target_sets else ()
    return next((one.summary for one in sets if one.name == name), summary)


def _results(summary: StudySummary, part: RankSection, datasets: list[str]) -> list[EvalResult]:
    if part.eval_loss is None:
        return []
    result = EvalResult(
        task_type="text-generation",
        task_name=title_of_study(summary),
        dataset_type=datasets[0] if datasets else "custom",
        dataset_name=f"{short_name(summary.study.dataset)}, held-out rows",
        metric_type="loss",
        metric_name="held-out loss, nats per token",
        metric_value=part.eval_loss,
        metric_args={"interval_95": list(part.eval_loss_ci95)} if part.eval_loss_ci95 else None,
    )
    return [result]


@contextmanager
def _hub_errors(repo: str) -> Iterator[None]:
    """Turn the errors of the hub's client into ours."""
    try:
        yield
    except HFValidationError as error:
        raise InputError(f"{repo} cannot be the name of a repository: {error}", remedy="give USER/NAME") from error
    except OfflineModeIsEnabled as error:
        raise InputError("access to the hub is switched off", remedy="unset HF_HUB_OFFLINE") from error
    except HfHubHTTPError as error:
        status, said = error.response.status_code, " ".join(str(error.server_message or error).split())
        if status == 401:
            remedy = "log in with `hf auth login`, or set HF_TOKEN"
            raise InputError(f"the hub wants to know who you are: {said}", remedy=remedy) from error
        if status in {403, 404}:
            raise InputError(f"you may not write to {repo}: {said}", remedy="give a repository of yours") from error
        raise LorascopeError(f"the hub did not take {repo}: {said}\n  -> repeat the command later") from error
    except (OSError, HTTPError) as error:
        raise LorascopeError(f"the hub cannot be reached: {error}\n  -> repeat the command later") from error
