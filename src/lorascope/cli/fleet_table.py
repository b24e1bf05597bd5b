"""Where the trials of a round train on several devices, for the terminal."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from lorascope.cli.columns import Column, make_table
from lorascope.text.numbers import format_about

if TYPE_CHECKING:
    from lorascope.costmodel.fleet import FleetPlan


def show_fleet(console: Console, fleet: "FleetPlan") -> None:
    """Print when the round ends on all devices, then the groups and the use of each."""
    placement = fleet.placement
    console.print()
    console.print(
        Text(
            f"On {len(fleet.devices)} devices the {fleet.trials} trials of the first round end after "
            f"{format_about(placement.end_seconds)}; no placement ends before {format_about(fleet.earliest_seconds)}.",
            style="bold",
        )
    )
    console.print(Text("A run with --executor process splits its rounds evenly instead."))
    by_device = {
        device.name: [group for group in placement.groups if group.device == device.name] for device in fleet.devices
    }
    columns = [
        Column(heading="device", cells=list(by_device), left=True),
        Column(heading="busy", cells=[f"{placement.use(name):.0%}" for name in by_device]),
        Column(
            heading="ends", cells=[format_about(placement.ends[name]) if own else "" for name, own in by_device.items()]
        ),
        Column(
            heading="groups",
            cells=["; ".join(", ".join(group.trials) for group in own) for own in by_device.values()],
            priority=1,
            left=True,
        ),
    ]
    console.print(make_table(columns, console.width))
