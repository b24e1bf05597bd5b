"""Study for notebooks: summary, tables and charts of a study folder, without Torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lorascope.analysis import StudyData, StudySummary, load_study, summarize_data
from lorascope.errors import InputError
from lorascope.report.write import Report, render, write_files
from lorascope.store.folder import StudyFolder
from lorascope.text.say import say

if TYPE_CHECKING:
    import pandas as pd

FrameKind = Literal["ranks", "trials", "steps", "evaluations"]

_INTERVALS = ("eval_loss_ci95", "token_accuracy_ci95", "excess_loss_ci95")
"""Of ranks; each is two columns of a table."""


@dataclass(frozen=True, repr=False)
class Study:
    """A study folder as it was when it was opened."""

    folder: Path
    data: StudyData
    summary: StudySummary

    def __repr__(self) -> str:
        return f"Study.open({str(self.folder)!r})"

    @classmethod
    def open(cls, folder: str | Path) -> "Study":
        """Read a study's folder, finished or not. Raises InputError when it is not one."""
        data = load_study(Path(folder))
        return cls(folder=Path(folder), data=data, summary=summarize_data(data))

    def report(self) -> Report:
        """Write report.html, report.md with its charts, and summary.json into the folder."""
        return write_files(self.folder, self.data, self.summary)

    def best_adapter(self, rank: int | None = None) -> Path:
        """Return the folder of a rank's adapter in PEFT's format, by default of the rank that the study recommends.

        Raises InputError where the study recommends none yet, or has no such adapter.
        """
        chosen = self.summary.recommendation.use.rank if rank is None else rank
        if chosen is None:
            raise InputError("the study recommends no rank yet", remedy="run it on, or name a rank")
        folder = StudyFolder(self.folder).adapters / f"r{chosen}"
        if not folder.is_dir():
            raise InputError(
                f"there is no adapter of rank {chosen} in {folder.parent}", remedy="run the study to its end"
            )
        return folder

    def to_peft(self, model: Any, rank: int | None = None) -> Any:  # noqa: ANN401 - PEFT's and Transformers' types
        """Return the model with a rank's adapter, as a ``PeftModel``; see ``best_adapter``."""
        from peft import PeftModel  # noqa: PLC0415 - loads Torch

        return PeftModel.from_pretrained(model, str(self.best_adapter(rank)))

    @cached_property
    def charts(self) -> Mapping[str, Any]:
        """Every chart of the report as an Altair chart, by name."""
        import altair as alt  # noqa: PLC0415 - takes long, and only charts need it

        from lorascope.charts.registry import make_charts  # noqa: PLC0415

        found = make_charts(self.data, self.summary)
        return {name: alt.Chart.from_dict(chart.page_spec | {"title": chart.title}) for name, chart in found.items()}

    def frame(self, of: FrameKind = "ranks") -> "pd.DataFrame":
        """Return ranks, trials, steps or evaluations as a pandas table, columns as in summary.json and the records.

        Raises InputError for another name, and where pandas is not installed.
        """
        try:
            import pandas as pd  # noqa: PLC0415 - no other part needs it
        except ImportError as error:
            raise InputError("there is no pandas", remedy="pip install pandas") from error
        makers = {"ranks": self._ranks, "trials": self._trials, "steps": self._steps, "evaluations": self._evaluations}
        if of not in makers:
            raise InputError(f"there is no table of {of!r}", remedy=f"give one of {', '.join(makers)}")
        return pd.DataFrame(makers[of]())

    def _repr_html_(self) -> str:
        """Show verdict, recommendation and the table of ranks."""
        return render("notebook.html.j2", self.summary, {})

    def _ranks(self) -> list[dict[str, Any]]:
        rows = []
        for part in self.summary.ranks:
            row = part.model_dump(exclude={*_INTERVALS, "memory", "forgetting", "gpu"})
            for name in _INTERVALS:
                row[f"{name}_low"], row[f"{name}_high"] = getattr(part, name) or (None, None)
            rows.append(row)
        return rows

    def _trials(self) -> list[dict[str, Any]]:
        return [trial.model_dump() | {"message": say(trial.message)} for trial in self.summary.trials]

    def _steps(self) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {"trial_id": [], "step": [], "nats": [], "target_tokens": [], "tokens": []}
        for name, steps in self.data.steps.items():
            columns["trial_id"] += [name] * len(steps)
            for field in ("step", "nats", "target_tokens", "tokens"):
                columns[field] += getattr(steps, field).tolist()
        return columns

    def _evaluations(self) -> list[dict[str, Any]]:
        return [
            {"trial_id": name, "step": record.step, "eval_loss": record.loss, "seconds": record.seconds}
            for name, records in self.data.evaluations.items()
            for record in records
        ]
