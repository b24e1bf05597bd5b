"""What the charts of an adapter's use show, as plain numbers; nothing here draws."""

from dataclasses import dataclass

from lorascope.analysis import StudyData, StudySummary
from lorascope.analysis.adapters.usage import effective_rank, examined_trials, module_kind


@dataclass(frozen=True, kw_only=True, slots=True)
class CutCurve:
    """Held-out loss of one adapter cut to smaller ranks, beside adapters trained at such ranks."""

    top: int
    """Rank of the adapter that was cut; the last point of the curve is the whole."""
    cuts: tuple[tuple[int, float], ...]
    """(rank, nats a token), ascending."""
    trained: tuple[tuple[int, float], ...]
    """The same, of the adapters trained at a rank."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UseByLayer:
    """Effective rank of each layer of one adapter."""

    top: int
    """Rank of the adapter."""
    kinds: tuple[tuple[str, tuple[float, ...]], ...]
    """Kind of module, and the effective rank in each layer of that kind, in the model's order."""


def cut_curve(summary: StudySummary) -> CutCurve | None:
    """Take the truncation curve; None where nothing was cut."""
    part = summary.truncation
    if part is None or not part.cuts:
        return None
    cuts = [(cut.rank, cut.eval_loss) for cut in part.cuts] + [(part.rank, part.eval_loss)]
    trained = [(cut.rank, cut.trained_eval_loss) for cut in part.cuts] + [(part.rank, part.eval_loss)]
    return CutCurve(
        top=part.rank,
        cuts=tuple((rank, loss) for rank, loss in cuts if loss is not None),
        trained=tuple((rank, loss) for rank, loss in trained if loss is not None),
    )


def use_by_layer(data: StudyData, summary: StudySummary) -> UseByLayer | None:
    """Take the effective ranks of the largest examined rank; None where no adapter was examined."""
    examined = examined_trials(data, summary.ranks, summary.trials)
    if not examined:
        return None
    top = max(examined)
    kinds: dict[str, list[float]] = {}
    for record in data.spectra:
        if record.trial_id == examined[top].trial_id:
            kinds.setdefault(module_kind(record.layer), []).append(effective_rank(record.singular_values))
    if not kinds:
        return None
    return UseByLayer(top=top, kinds=tuple((kind, tuple(values)) for kind, values in kinds.items()))
