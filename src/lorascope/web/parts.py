"""Parts of a study's page in one language: HTML, specifications of charts, and the points of the live lines."""

from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import quote

from lorascope.analysis.samples import compare_answers
from lorascope.charts.downsample import smooth
from lorascope.records import UNSUCCESSFUL
from lorascope.text.language import language
from lorascope.units import to_gigabytes, to_minutes
from lorascope.web import view
from lorascope.web.live_charts import live_charts, summary_charts
from lorascope.web.monitor import LiveStudy, Result
from lorascope.web.series import Line
from lorascope.web.snapshot import Snapshot
from lorascope.web.state import best_trials

Parts = dict[str, object]
"""Parts by name. A part is sent whole whenever it changes."""
Points = list[tuple[float, ...]]
"""Points (x, value) or (x, value, lowest, highest): nats a token over steps, or GB over minutes."""
_CACHED = 16


@lru_cache(maxsize=_CACHED)
def render_study(study: LiveStudy, code: str) -> Parts:
    """Render a study in a language."""
    with language(code):
        parts: Parts = {
            "problem": view.problem(*study.problem),
            "state": {"name": study.state, "label": view.state_label(study.state)},
            "status": view.status(
                study.snapshot,
                study.state,
                report=f"/study/{quote(study.name, safe='')}/files/" if study.report else "",
            ),
        }
        if study.spec is not None:
            parts["head"] = view.head(study)
        if study.snapshot is not None:
            parts["trials"] = view.trials(study.snapshot, study.series, study.state)
            parts["live_charts"] = live_charts(study.snapshot)
            parts["best"] = list(best_trials(study.snapshot.trials))
            parts["data_hash"] = study.snapshot.resolved and study.snapshot.resolved.data_hash
            parts |= _lines(study, study.snapshot)
    return parts | (render_result(study.result, code) if study.result else {})


@lru_cache(maxsize=_CACHED)
def render_result(result: Result, code: str) -> Parts:
    """Render a summary in a language."""
    with language(code):
        html = view.result(result.summary, compare_answers(result.data))
        return {"result": html, "summary_charts": summary_charts(result.data, result.summary)}


def _lines(study: LiveStudy, snapshot: Snapshot) -> Iterator[tuple[str, object]]:
    """Yield the lines that have points, named by chart and by trial id or column."""
    for trial in snapshot.trials:
        name, ended = trial.trial.trial_id, trial.outcome in UNSUCCESSFUL
        about = {
            "rank": str(trial.trial.rank),
            "targets": trial.trial.targets,
            "alpha": f"{trial.trial.lora_alpha:g}",
            "rate": f"{trial.trial.learning_rate:g}",
            "seed": str(trial.trial.seed),
        }
        for chart, points in (
            ("train", _smoothed(study.series["train"][name])),
            ("eval", [_point(bucket.x, bucket.mean) for bucket in study.series["eval"][name]]),
        ):
            if points:
                yield f"lines/{chart}/{name}", about | {"ended": ended, "points": points}
    for column, line in study.series["memory"].items():
        if line:
            yield f"lines/memory/{column}", {"rank": None, "ended": False, "points": _gigabytes(line)}


def _smoothed(line: Line) -> Points:
    values = smooth([bucket.mean for bucket in line])
    return [_point(bucket.x, value, bucket.low, bucket.high) for bucket, value in zip(line, values, strict=True)]


def _gigabytes(line: Line) -> Points:
    return [_point(to_minutes(b.x), *map(to_gigabytes, (b.mean, b.low, b.high))) for b in line]


def _point(x: float, *values: float) -> tuple[float, ...]:
    """Leave out digits that no screen shows."""
    return (x if isinstance(x, int) else float(f"{x:.6g}"), *(float(f"{value:.6g}") for value in values))
