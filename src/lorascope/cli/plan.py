"""``lorascope plan``: predict the cost of a study before training."""

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console

from lorascope.cli.flags import STUDY
from lorascope.cli.gc_pause import pause_gc
from lorascope.cli.run import StudyFlags, read_study
from lorascope.spec.schema import StudySpec

if TYPE_CHECKING:
    from lorascope.cli.forecast import Forecast
    from lorascope.costmodel.plan import StudyPlan


def plan(
    study: str | None = None,
    /,
    *,
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
    json
        Write one JSON object.
    """
    _, spec = read_study(study, flags)
    with pause_gc():
        planned, forecast = _plan(spec)
    if json:
        from lorascope.cli.plan_output import plan_output

        print(plan_output(planned, forecast).model_dump_json(indent=2))  # noqa: T201
    else:
        from lorascope.cli.plan_table import show_plan

        show_plan(Console(), planned, forecast)
    return 0


def _plan(spec: StudySpec) -> "tuple[StudyPlan, Forecast | None]":
    """Plan a study, and forecast what it could show where it has several seeds or decides how long it goes on."""
    if spec.until_decided or spec.time_budget is not None or len(spec.seeds) > 1:
        from lorascope.cli.forecast import plan_with_forecast  # it imports what reads studies: half a second

        return plan_with_forecast(spec)
    from lorascope.costmodel.plan import plan_study

    return plan_study(spec), None
