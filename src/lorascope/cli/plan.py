"""``lorascope plan``: predict the cost of a study before training."""

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console

from lorascope.cli.flags import STUDY
from lorascope.cli.gc_pause import pause_gc
from lorascope.cli.program_output import program_output
from lorascope.cli.run import StudyFlags, read_study
from lorascope.spec.schema import StudySpec

if TYPE_CHECKING:
    from lorascope.cli.forecast import Forecast
    from lorascope.costmodel.fleet import FleetPlan
    from lorascope.costmodel.plan import StudyPlan


def plan(
    study: str | None = None,
    /,
    *,
    devices: Annotated[str | None, Parameter(show_default=False, metavar="LIST", group=STUDY)] = None,
    json: Annotated[bool, Parameter(negative="", show_default=False, group=STUDY)] = False,
    flags: Annotated[StudyFlags | None, Parameter(name="*")] = None,
) -> int:
    """Predict parameters, memory and time of every rank from the model's configuration; loads no weights.

    Parameters
    ----------
    study
        A study file (YAML), a preset, or the folder of a study. Flags override it. Without it, --model and --dataset,
        or else the preset demo.
        Besides auto, cpu and cuda, --device takes a GPU by name: T4, L4, A10G, A100-40GB, A100-80GB, L40S, RTX-3090,
        RTX-4090, RTX-5090, H100, H200, B200.
    devices
        GPUs that share the first round's trials, such as 4xL4 or 2xA100-80,4xL4: shows where each trains, when the
        round ends and how busy each GPU is. The rest of the plan is for the first of them.
    json
        Write one JSON object.
    """
    with program_output(alone=json) as out:
        _, spec = read_study(study, flags)
        with pause_gc():
            planned, forecast = _plan(spec if devices is None else _on_first(spec, devices))
            fleet = None if devices is None else _plan_fleet(spec, devices, planned.total_steps)
        if json:
            from lorascope.cli.plan_output import plan_output

            print(plan_output(planned, forecast, fleet).model_dump_json(indent=2), file=out)
        else:
            from lorascope.cli.plan_table import show_plan

            show_plan(Console(), planned, forecast)
            if fleet is not None:
                from lorascope.cli.fleet_table import show_fleet

                show_fleet(Console(), fleet)
    return 0


def _on_first(spec: StudySpec, devices: str) -> StudySpec:
    from lorascope.costmodel.fleet import parse_devices

    return spec.model_copy(update={"device": parse_devices(devices)[0]})


def _plan_fleet(spec: StudySpec, devices: str, steps: int | None) -> "FleetPlan":
    """Place trials of the steps that are planned, which a time budget chooses on the first device."""
    from lorascope.costmodel.fleet import plan_fleet

    return plan_fleet(spec if steps is None else spec.model_copy(update={"max_steps": steps}), devices)


def _plan(spec: StudySpec) -> "tuple[StudyPlan, Forecast | None]":
    """Plan a study, and forecast what it could show where it has several seeds or decides how long it goes on."""
    if spec.until_decided or spec.time_budget is not None or len(spec.seeds) > 1:
        from lorascope.cli.forecast import plan_with_forecast  # it imports what reads studies: half a second

        return plan_with_forecast(spec)
    from lorascope.costmodel.plan import plan_study

    return plan_study(spec), None
