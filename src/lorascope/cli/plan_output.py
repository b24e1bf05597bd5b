"""What ``lorascope plan --json`` writes; docs/json.md is made from it."""

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lorascope.analysis.section import Section
from lorascope.text.say import say

if TYPE_CHECKING:
    from lorascope.cli.forecast import Forecast
    from lorascope.costmodel.fleet import FleetPlan
    from lorascope.costmodel.plan import StudyPlan


class MemoryPart(Section):
    """Peak memory of a step by what holds it."""

    base_bytes: int
    """Weights of the frozen base."""
    adapter_bytes: int
    """Trained parameters."""
    gradient_bytes: int
    """Their gradients."""
    optimizer_bytes: int
    """AdamW's averages."""
    activation_bytes: int
    """Activations of the largest micro-batch."""
    rest_bytes: int
    """The program, libraries and buffers."""


class CostPart(Section):
    """Predicted cost of training."""

    trainable_parameters: int
    """Trained parameters."""
    adapter_bytes: int
    """Of the parameters in the files; in full fine-tuning, of the weights."""
    flops_per_token: float
    """Floating-point operations of a token, forward and backward."""
    bytes_per_step: float
    """Memory traffic of a step."""
    step_seconds: float
    """Of an optimizer step."""
    runtime_seconds: float | None
    """Of all steps; null if the number of rows is unknown."""
    peak_memory_bytes: int
    """Peak memory."""
    memory_split: MemoryPart
    """The same by what holds it."""
    fits: bool
    """True: the device has that much memory."""
    largest_batch: int
    """Rows of mean length that fit in one micro-batch."""


class RankPart(CostPart):
    """A rank trained alone."""

    targets: str
    """Name of its set of target modules; empty where the study has one."""
    rank: int
    """LoRA rank r."""
    saved_rank: int
    """Rank of the adapter's files: twice the trained one where initial values come from the base."""
    beyond_limits: tuple[str, ...]
    """Fields of the study whose limit it exceeds."""


class JointPart(CostPart):
    """All trials of the first group trained at once, as a study does."""

    trials: int
    """Trials of the group."""


class CalibrationPart(Section):
    """Earlier studies on this machine by which times were scaled."""

    base_parameters: int
    """Size of the model that was measured."""
    factor: float
    """Measured over predicted seconds of a rank alone."""
    joint_factor: float
    """The same of joint training."""


class LookPart(Section):
    """A look that the study can take."""

    seeds: int
    """Seeds."""
    rows: int
    """Held-out rows."""


class NoisePart(Section):
    """Standard deviations of a difference between two ranks, in nats a token."""

    assumed: bool
    """False: an earlier study of the same model and rows showed it."""
    row: float
    """From row to row, in all seeds alike."""
    row_of_seed: float
    """From row to row, in one seed alone."""
    seed: float
    """From seed to seed."""
    target_tokens: float
    """Mean target tokens of the rows."""


class ForecastPart(Section):
    """What the study could show; see docs/verdict.md."""

    first_look: LookPart
    """The first look at the data."""
    last_look: LookPart
    """The last one that the time allows."""
    smallest_difference: float | None
    """Half the width of a difference's interval at the last look, in nats a token; null where it is not finite."""
    chance_if_equal: float
    """Chance of a verdict if all ranks are equally good."""
    chance_if_worse: float
    """Chance of a verdict if the smallest rank is worse by ``worse_by``."""
    worse_by: float
    """In nats a token."""
    noise: NoisePart
    """Noise that the chances are computed with."""


class GroupPart(Section):
    """Trials that train together."""

    device: str
    """Such as ``L4 2``."""
    trials: tuple[str, ...]
    """Their names."""
    seconds: float
    """From their first step to their last, with their evaluations."""


class DevicesPart(Section):
    """The first round on the devices of ``--devices``, placed for the earliest end; a run splits its rounds evenly."""

    end_seconds: float
    """Until the last trial of the round ends."""
    earliest_seconds: float
    """No placement ends before."""
    groups: tuple[GroupPart, ...]
    """Those of a device train one after another."""
    use: dict[str, float]
    """Share of that time in which a device works, by device."""


class PlanOutput(Section):
    """``lorascope plan --json``: predictions before training; nothing was trained."""

    model: str
    """Base model."""
    base_parameters: int
    """Its parameters."""
    adapted_modules: int
    """Linear layers with adapters."""
    device: str
    """Device that the prediction is for."""
    device_memory_bytes: int
    """Its memory."""
    dtype: str
    """Precision of the frozen base."""
    rows: str
    """Where the lengths of the rows come from."""
    tokens_per_step: float
    """Mean tokens of an optimizer step."""
    total_steps: int | None
    """Optimizer steps of each trial; null if the number of rows is unknown."""
    ranks: tuple[RankPart, ...]
    """Each rank alone."""
    unchecked_limits: tuple[str, ...]
    """Fields of the study with a limit that could not be compared with a prediction."""
    joint: JointPart
    """All ranks at once."""
    full_fine_tuning: CostPart
    """Full fine-tuning in float32 with AdamW, for comparison."""
    training_seconds: float | None
    """Of all trials; null if the number of rows is unknown."""
    evaluation_seconds: float | None
    """Of all evaluations; null in the same case."""
    total_seconds: float | None
    """From start to report; null in the same case."""
    calibration: CalibrationPart | None
    """Measurements that scaled the times; null without any."""
    notes: tuple[str, ...]
    """What else there is to know, a sentence each."""
    forecast: ForecastPart | None
    """Null for one rank, unknown rows, or one seed without ``until_decided`` and ``time_budget``."""
    devices: DevicesPart | None
    """Null without ``--devices``."""


def plan_output(
    planned: "StudyPlan", forecast: "Forecast | None" = None, fleet: "FleetPlan | None" = None
) -> PlanOutput:
    """Collect what ``--json`` writes of a plan, its forecast, and its placement on several devices."""
    ranks = tuple(
        RankPart(
            targets=part.targets,
            rank=part.rank,
            saved_rank=part.saved_rank,
            **asdict(part.cost),
            beyond_limits=tuple(limit.field for limit in planned.limits if limit.exceeded(part.cost)),
        )
        for part in planned.ranks
    )
    own = {"ranks", "joint", "calibration", "notes"}
    plain = {name: getattr(planned, name) for name in PlanOutput.model_fields.keys() - own if hasattr(planned, name)}
    return PlanOutput(
        **plain,
        ranks=ranks,
        unchecked_limits=tuple(limit.field for limit in planned.limits if limit.taken(planned.ranks[0].cost) is None),
        joint=JointPart(trials=planned.joint_trials, **asdict(planned.joint)),
        full_fine_tuning=CostPart(**asdict(planned.full)),
        calibration=_calibration(planned),
        notes=tuple(say(note) for note in planned.notes),
        forecast=_forecast(forecast.facts()) if forecast else None,
        devices=_devices(fleet) if fleet else None,
    )


def _devices(fleet: "FleetPlan") -> DevicesPart:
    placement = fleet.placement
    return DevicesPart(
        end_seconds=placement.end_seconds,
        earliest_seconds=fleet.earliest_seconds,
        groups=tuple(GroupPart(**asdict(group)) for group in placement.groups),
        use={device.name: placement.use(device.name) for device in fleet.devices},
    )


def _calibration(planned: "StudyPlan") -> CalibrationPart | None:
    known = planned.calibration
    if known is None:
        return None
    return CalibrationPart(base_parameters=known.parameters, factor=known.factor, joint_factor=known.joint_factor)


def _forecast(facts: dict[str, Any]) -> ForecastPart:
    smallest = facts["smallest_difference"]
    return ForecastPart.model_validate({**facts, "smallest_difference": smallest if math.isfinite(smallest) else None})
