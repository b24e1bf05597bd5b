"""TensorBoard: event files in the study's folder, one folder a run."""

import json
from collections.abc import Sequence
from pathlib import Path
from textwrap import indent

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from lorascope.run.trackers.experiment import Row, RunState, StudyResult, TrackedRun


class TensorboardTracker:
    """Follows ``ExperimentTracker``; a continued run purges its last step and writes it again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "tensorboard"
        self._writers: dict[str, SummaryWriter] = {}

    def last_step(self, run: TrackedRun) -> int:
        """Return the last step but one: the last may lack some of its values. Files of an abandoned run go."""
        folder = self._folder / run.name
        for file in folder.glob("events*"):
            if not file.name.endswith(run.run_id):
                file.unlink()
        if not folder.is_dir():
            return -1
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
        steps = (event.step for tag in events.Tags()["scalars"] for event in events.Scalars(tag))
        return max(steps, default=0) - 1

    def log(self, run: TrackedRun, rows: Sequence[Row]) -> None:
        """Write the rows to the disk."""
        writer = self._writer(run, rows[0].step)
        for row in rows:
            for name, value in row.values.items():
                writer.add_scalar(name, value, row.step)
        writer.flush()

    def result(self, run: TrackedRun, result: StudyResult) -> None:
        """Write verdict and table as text, and the charts as images."""
        writer = self._writer(run, None)
        writer.add_text("verdict", result.headline)
        writer.add_text("ranks", result.ranks_markdown)
        for name, path in result.charts.items():
            with Image.open(path) as image:
                writer.add_image(f"charts/{name}", np.asarray(image.convert("RGB")), dataformats="HWC")

    def close(self, run: TrackedRun, state: RunState) -> None:  # noqa: ARG002 - TensorBoard has no states
        """Close the file."""
        if run.run_id in self._writers:
            self._writers.pop(run.run_id).close()

    def where(self) -> str:
        """Return the command that shows the files."""
        return f"tensorboard --logdir {self._folder}"

    def _writer(self, run: TrackedRun, step: int | None) -> SummaryWriter:
        """Return the writer of a run; one that begins at a step purges what is there of it."""
        if run.run_id not in self._writers:
            folder = self._folder / run.name
            begun = folder.is_dir()
            writer = SummaryWriter(str(folder), purge_step=step if begun else None, filename_suffix=f".{run.run_id}")
            if not begun:
                writer.add_text("config", indent(json.dumps(dict(run.config), indent=2), "    "))  # Markdown's code
            self._writers[run.run_id] = writer
        return self._writers[run.run_id]
