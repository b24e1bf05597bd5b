"""One look at a study: everything the fast half of its page shows, read in one moment."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from lorascope.records import EvalRecord, GpuSample, ResolvedStudy, SystemSample, TrialRecord
from lorascope.spec.schema import StudySpec
from lorascope.store.live import Bucket, LiveStore
from lorascope.units import to_gigabytes, to_minutes
from lorascope.web.series import Follower
from lorascope.web.state import TrialStand, seconds_left, stand


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """A study at one moment."""

    spec: StudySpec
    resolved: ResolvedStudy | None
    starts: int
    examined: int
    """Records that are no part of training; the summary changes with them."""
    trials: tuple[TrialStand, ...]
    train_losses: Mapping[str, float]
    """Mean over the last tenth of the steps, by trial id."""
    eval_losses: Mapping[str, float]
    """At the last evaluation, by trial id."""
    eval_steps: Mapping[str, int]
    """Step of the last evaluation, by trial id."""
    sample: SystemSample | None
    gpus: tuple[GpuSample, ...]
    """The newest reading of each GPU."""
    seconds_left: float | None


class Watch:
    """Follows the lines of one study from look to look."""

    def __init__(self) -> None:
        self.lines: dict[tuple[str, str], Follower] = {}
        """By chart and by trial id or column."""
        self._starts = 0
        self._last_evaluations: dict[str, EvalRecord] = {}

    def look(self, store: LiveStore, spec: StudySpec, version: int) -> Look:
        """Read what is new; points that come or change get ``version``."""
        with store.snapshot():
            starts = store.starts()
            if starts != self._starts:
                # A run that continues first drops what its checkpoint does not know, and then writes it again.
                for line in self.lines.values():
                    line.doubt()
                self._starts = starts
            outcomes, resolved = store.outcomes(), store.read_one(ResolvedStudy)
            trials = tuple(
                stand(trial, outcomes.get(trial.trial_id), store.last_step(trial.trial_id))
                for trial in store.read(TrialRecord)
            )
            for trial in trials:
                self._follow_trial(store, trial.trial.trial_id, version)
            newest = store.last_sample()
            if newest is not None:
                for column in ("rss_bytes", "device_allocated_bytes"):
                    self._line("memory", column).follow(newest[0], _samples(store, column), version)
            group = next((t.trial.trial_id for t in trials if t.outcome == "running"), None)
            left = seconds_left(
                trials,
                spec,
                resolved,
                step_seconds=store.recent_step_seconds(group) if group else None,
                evaluation_seconds={name: record.seconds for name, record in self._last_evaluations.items()},
            )
            return Look(
                spec=spec,
                resolved=resolved,
                starts=starts,
                examined=store.examined(),
                trials=trials,
                train_losses=self._last_train_losses(),
                eval_losses={
                    name: record.loss for name, record in self._last_evaluations.items() if record.loss is not None
                },
                eval_steps={name: record.step for name, record in self._last_evaluations.items()},
                sample=newest[1] if newest else None,
                gpus=tuple(store.last_gpu_samples()),
                seconds_left=left,
            )

    def _follow_trial(self, store: LiveStore, name: str, version: int) -> None:
        self._line("train", name).follow(
            store.last_step(name), lambda after, size: store.step_buckets(name, after=after, size=size), version
        )

        def evaluations(after: int, size: int) -> list[Bucket]:
            del size  # the curve joins what it must; evaluations are few
            found = store.evaluations_after(name, after)
            if after < 0:
                self._last_evaluations.pop(name, None)
            if found:
                self._last_evaluations[name] = found[-1]
            return [bucket for record in found if (bucket := _bucket(record)) is not None]

        self._line("eval", name, sparse=True).follow(store.last_evaluation(name), evaluations, version)

    def _line(self, chart: str, name: str, *, sparse: bool = False) -> Follower:
        return self.lines.setdefault((chart, name), Follower(sparse=sparse))

    def _last_train_losses(self) -> dict[str, float]:
        lines = {name: line.curve.last for (chart, name), line in self.lines.items() if chart == "train"}
        return {name: loss for name, loss in lines.items() if loss is not None}


def _samples(store: LiveStore, column: str) -> Callable[[int, int], list[Bucket]]:
    """Read a column of bytes as GB over minutes."""

    def read(after: int, size: int) -> list[Bucket]:
        return [
            replace(
                bucket,
                x=to_minutes(bucket.x),
                total=to_gigabytes(bucket.total),
                low=to_gigabytes(bucket.low),
                high=to_gigabytes(bucket.high),
            )
            for bucket in store.sample_buckets(column, after=after, size=size)
        ]

    return read


def _bucket(record: EvalRecord) -> Bucket | None:
    loss, weight = record.loss, sum(record.example_target_tokens)
    if loss is None:
        return None
    return Bucket(position=record.step, x=record.step, total=loss * weight, weight=weight, low=loss, high=loss)
