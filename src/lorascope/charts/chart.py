"""A chart of a study: its words and its Vega-Lite specifications."""

from dataclasses import dataclass
from typing import Literal

from lorascope.charts.vega import Spec

SectionName = Literal[
    "loss_curves",
    "learning_rates",
    "trade_offs",
    "truncation",
    "larger_ranks",
    "spectra",
    "forgetting",
    "predictions",
    "costs",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """One chart in the language in use."""

    name: str
    """File name without its ending."""
    section: SectionName
    """Section of the report that shows it."""
    title: str
    caption: str
    """Explains the marks."""
    finding: str = ""
    """Says what the chart shows, with its number, for those who cannot see it and those who look at it first."""
    spec: Spec
    interactive_spec: Spec | None = None
    """Differs from ``spec`` in what answers the pointer; None where nothing does."""

    @property
    def page_spec(self) -> Spec:
        """The specification for a browser."""
        return self.interactive_spec or self.spec

    @property
    def alt_text(self) -> str:
        """Text for readers who cannot see the chart."""
        return " ".join(filter(None, (f"{self.title}.", self.finding, self.caption)))
