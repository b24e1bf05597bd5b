"""Caveats in a few words, for a first screen; the sentence of each says more."""

from collections.abc import Sequence

from lorascope.analysis.summary import StudySummary
from lorascope.analysis.verdict.schema import CautionKind, CautionSection
from lorascope.text.language import tr

MOST = 3
"""Caveats on a first screen."""
GRAVE = ("adapter_differs", "dropped_rows")
"""Cautions that may make a whole study useless: they are said in full before anything else."""


def first_caveats(summary: StudySummary) -> Sequence[tuple[str, CautionSection]]:
    """Return the weightiest caveats, each with its words. That the study is not finished is said by its status."""
    names = caveat_names()
    found = [caution for caution in summary.cautions if caution.kind not in ("unfinished", *GRAVE)]
    return [(names[caution.kind], caution) for caution in found[:MOST]]


def caveat_names() -> dict[CautionKind, str]:
    """Name every kind of caution."""
    return {
        "adapter_differs": tr("an adapter differs under PEFT"),
        "unfinished": tr("not finished"),
        "ended_early": tr("runs ended early"),
        "one_learning_rate": tr("one learning rate"),
        "learning_rate_at_edge": tr("best learning rate at the edge"),
        "one_seed": tr("one seed"),
        "few_eval_examples": tr("few held-out examples"),
        "short_run": tr("short run"),
        "no_end_token": tr("no end token is trained"),
        "dropped_rows": tr("examples were dropped"),
        "cut_rows": tr("many examples are cut"),
        "orders_disagree": tr("training loss disagrees"),
        "eval_loss_rising": tr("held-out loss rises"),
        "no_improvement": tr("no better than the base"),
        "underpowered": tr("intervals wider than the tolerance"),
        "seeds_added": tr("seeds were added"),
        "below_capacity": tr("too little data to fill a rank"),
        "environment_changed": tr("the environment changed"),
        "memory_not_returned": tr("memory not returned"),
        "unsteady_steps": tr("timing unreliable"),
    }
