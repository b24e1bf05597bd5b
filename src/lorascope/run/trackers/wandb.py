"""Weights & Biases; WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY, WANDB_DIR and the like hold as usual."""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import wandb
from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # chosen as it is imported

from lorascope.run.trackers.experiment import Row, RunState, StudyResult, TrackedRun

_PROJECT = "lorascope"
_HEADER_BYTES = 7
_BLOCK_BYTES = 32768
_FULL, _LAST = 1, 4
"""Kinds of chunks that end a record."""


class WandbTracker:
    """Follows ``ExperimentTracker``; a run is resumed by its id, and what is online or in offline files stays."""

    def __init__(self, folder: Path) -> None:  # noqa: ARG002 - W&B's own folder is used
        self._runs: dict[str, wandb.Run] = {}
        self._where = ""
        # the run measures itself; this process is not the one that trains
        self._settings = wandb.Settings(
            silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True, x_disable_meta=True
        )

    def last_step(self, run: TrackedRun) -> int:
        """Return the last step; of a run that is kept offline, from its files."""
        settings = wandb.setup().settings
        if settings.mode in {"offline", "dryrun"}:
            files = Path(settings.wandb_dir).glob(f"*run-*-{run.run_id}/run-{run.run_id}.wandb")
            records = (record for file in files for record in read_records(file))
            steps = (record.history.step.num for record in records if record.WhichOneof("record_type") == "history")
            return max(steps, default=-1)
        return self._run(run).starting_step - 1

    def log(self, run: TrackedRun, rows: Sequence[Row]) -> None:
        """Log each row as a step of W&B's own."""
        for row in rows:
            self._run(run).log(dict(row.values), step=row.step, commit=True)

    def result(self, run: TrackedRun, result: StudyResult) -> None:
        """Log table and charts, and attach the report."""
        target = self._run(run)
        target.summary["verdict"] = result.headline
        table = wandb.Table(columns=list(result.ranks.header), data=[list(row) for row in result.ranks.rows])
        charts = {f"charts/{name}": wandb.Image(str(path)) for name, path in result.charts.items()}
        target.log({"ranks": table, **charts})
        for file in result.files:
            target.save(str(file.resolve()), base_path=str(file.resolve().parent), policy="now")

    def close(self, run: TrackedRun, state: RunState) -> None:
        """Finish the run; W&B shows one that did not finish as failed."""
        if run.run_id in self._runs:
            self._runs.pop(run.run_id).finish(exit_code=0 if state == "finished" else 1)

    def where(self) -> str:
        """Return the group's page, or the command that sends what is kept offline."""
        return self._where

    def _run(self, run: TrackedRun) -> wandb.Run:
        """Return the run, which is made or resumed at its first use."""
        if run.run_id not in self._runs:
            made = wandb.init(
                project=wandb.setup().settings.project or _PROJECT,
                id=run.run_id,
                name=run.name,
                group=run.study,
                job_type="trial" if run.is_trial else "study",
                config=dict(run.config),
                resume="allow",
                reinit="create_new",
                settings=self._settings,
            )
            page = f"{made.project_url}/groups/{quote(run.study)}/workspace"
            self._where = f"wandb sync {made.settings.wandb_dir}/offline-run-*" if made.offline else page
            made.define_metric(run.axis)
            made.define_metric("*", step_metric=run.axis)
            self._runs[run.run_id] = made
        return self._runs[run.run_id]


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records in a file that W&B keeps of a run, up to where it was cut off.

    The file is a log as LevelDB writes it, behind a header of its own: chunks of checksum, length, kind and data, none
    across the border of a block.
    """
    data, position, held = path.read_bytes(), _HEADER_BYTES, b""
    while position + _HEADER_BYTES <= len(data):
        left = _BLOCK_BYTES - position % _BLOCK_BYTES
        if left < _HEADER_BYTES:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        position += _HEADER_BYTES + length
        if position > len(data):
            return
        held += data[position - length : position]
        if kind in {_FULL, _LAST}:
            yield Record.FromString(held)
            held = b""
