"""Read back what trackers wrote: the rows of each run by its name, and what else a run has."""

import json
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Rows = dict[int, dict[str, float]]


@dataclass
class Tracked:
    """One run as its tracker has it."""

    logged: list[tuple[int, str]] = field(default_factory=list)
    """Step and name of every value, in order: twice where it was logged twice."""
    rows: Rows = field(default_factory=dict)
    group: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    result: set[str] = field(default_factory=set)
    """Names of charts, tables and texts."""
    verdict: str = ""

    def add(self, step: int, name: str, value: float) -> None:
        self.logged.append((step, name))
        self.rows.setdefault(step, {})[name] = value


Reader = Callable[[Path, Path], Mapping[str, Tracked]]
"""Reads the runs that are in a folder of the trackers' own and in a study's folder, by name."""


def read_wandb(home: Path, study: Path) -> dict[str, Tracked]:
    from lorascope.run.trackers.wandb import read_records

    runs: dict[str, Tracked] = {}
    for file in sorted(home.glob("wandb/offline-run-*/run-*.wandb")):
        run = Tracked()
        for record in read_records(file):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                run = runs.setdefault(record.run.display_name, run)
                run.group = record.run.run_group
                run.config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            elif kind == "history":
                values = {
                    "/".join(one.nested_key) or one.key: json.loads(one.value_json) for one in record.history.item
                }
                for name, value in values.items():
                    if name.startswith(("charts/", "ranks")):
                        run.result.add(name.removesuffix("/path"))
                    elif not name.startswith("_") and "ranks/path" not in values:
                        run.add(record.history.step.num, name, value)
            elif kind == "summary":
                found = {one.key: one.value_json for one in record.summary.update}
                run.verdict = json.loads(found["verdict"]) if "verdict" in found else run.verdict
    return runs


def read_mlflow(home: Path, study: Path) -> dict[str, Tracked]:
    runs: dict[str, Tracked] = {}
    if not (home / "mlflow.db").is_file():
        return runs
    with closing(sqlite3.connect(home / "mlflow.db", timeout=60)) as base:
        for run_id, name, artifacts in base.execute("SELECT run_uuid, name, artifact_uri FROM runs").fetchall():
            run, tags = Tracked(), dict(base.execute("SELECT key, value FROM tags WHERE run_uuid = ?", (run_id,)))
            parent = tags.get("mlflow.parentRunId", run_id)
            query = "SELECT value FROM tags WHERE run_uuid = ? AND key = 'lorascope.study'"
            run.group, run.verdict = base.execute(query, (parent,)).fetchone()[0], tags.get("verdict", "")
            run.config = dict(base.execute("SELECT key, value FROM params WHERE run_uuid = ?", (run_id,)))
            for step, key, value in base.execute("SELECT step, key, value FROM metrics WHERE run_uuid = ?", (run_id,)):
                run.add(step, key, value)
            folder = Path(artifacts.removeprefix("file://"))
            run.result = {file.relative_to(folder).as_posix().removesuffix(".png") for file in folder.rglob("*.*")}
            runs["study" if parent == run_id else name] = run
    return runs


def read_tensorboard(home: Path, study: Path) -> dict[str, Tracked]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    runs: dict[str, Tracked] = {}
    for folder in (study / "tensorboard").glob("*"):
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
        run = runs[folder.name] = Tracked(group=str(study))
        for name in events.Tags()["scalars"]:
            for event in events.Scalars(name):
                run.add(event.step, name, event.value)
        texts = {
            name: events.Tensors(name)[-1].tensor_proto.string_val[0].decode() for name in events.Tags()["tensors"]
        }
        run.result = {*events.Tags()["images"], *(name.partition("/")[0] for name in texts)}
        run.verdict = texts.get("verdict/text_summary", "")
        run.config = json.loads(texts.get("config/text_summary", "{}"))
    return runs


def read_trackio(home: Path, study: Path) -> dict[str, Tracked]:
    runs: dict[str, Tracked] = {}
    if not (home / "trackio" / "lorascope.db").is_file():
        return runs
    with closing(sqlite3.connect(home / "trackio" / "lorascope.db", timeout=60)) as base:
        for name, text in base.execute("SELECT run_name, config FROM configs").fetchall():
            config = json.loads(text)
            run = runs[name.removeprefix(f"{config['_Group']}-")] = Tracked(group=config["_Group"], config=config)
            query = "SELECT step, metrics FROM metrics WHERE run_name = ? ORDER BY id"
            for step, metrics in base.execute(query, (name,)):
                values = json.loads(metrics)
                if "verdict" in values:
                    run.result, run.verdict = set(values), values["verdict"]["_value"]
                    continue
                for key, value in values.items():
                    run.add(step, key, value)
    return runs


READERS: dict[str, Reader] = {
    "wandb": read_wandb,
    "mlflow": read_mlflow,
    "tensorboard": read_tensorboard,
    "trackio": read_trackio,
}
