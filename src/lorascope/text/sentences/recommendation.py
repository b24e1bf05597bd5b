"""Sentences of the recommendation: why a rank is recommended, and what would change that."""

from lorascope.text.sentences.plural import Plural

RECOMMENDATION: dict[str, str | Plural] = {
    "advice.reasons": "{reasons:semicolons}",
    "advice.only_rank": "the only rank with a held-out loss",
    "advice.lowest_and_smallest": "lowest held-out loss, {loss:nats} nats a token, and the smallest rank",
    "advice.lowest": (
        "lowest held-out loss, {loss:nats} nats a token; every smaller rank compared is measurably above it"
    ),
    "advice.not_shown_worse": (
        "smallest rank not shown to be worse than another: {loss:nats} nats a token, {excess:interval} above rank "
        "{best}, the lowest"
    ),
    "advice.within_tolerance": ("smallest rank shown to be within {tolerance:g} nats a token of the lowest loss"),
    "advice.within_tolerance_in_one_seed": (
        "smallest rank shown, in one seed, to be within {tolerance:g} nats a token of the lowest loss"
    ),
    "advice.within_tolerance_by_estimate": (
        "smallest rank within {tolerance:g} nats a token of the lowest loss by the estimate alone"
    ),
    "advice.step_alone": "{step_seconds:seconds} a step alone",
    "advice.no_times": "times were not measured",
    "advice.not_shown_inadequate": (
        "smallest rank not shown to be worse than the tolerance of {tolerance:g}: {place}; {memory}"
    ),
    "advice.lowest_loss": "the lowest loss",
    "advice.above_lowest": "{excess:interval} above the lowest",
    "advice.training_state": "its adapter, gradient and optimizer take {size:bytes}",
    "advice.least_memory": "least memory",
    "advice.only_within_limits": "the only rank within the limits",
    "advice.among_within_limits": "of {count} ranks within the limits: {reason}",
    "advice.above_lowest_of_all": "its held-out loss is {excess:interval} above the lowest of all ranks",
    "limit.none_within": "No rank is within the limits; rank {rank} comes nearest: {over:list}",
    "limit.peak_memory": "peak memory {amount:bytes} (limit {most:bytes})",
    "limit.peak_memory_unknown": "peak memory not measured (limit {most:bytes})",
    "limit.training_alone": "training alone {amount:seconds} (limit {most:seconds})",
    "limit.training_alone_unknown": "training alone not measured (limit {most:seconds})",
    "limit.adapter": "adapter {amount:bytes} (limit {most:bytes})",
    "limit.adapter_unknown": "adapter not measured (limit {most:bytes})",
    "change.no_smaller_rank": "No smaller rank was tried.",
    "change.may_exceed_best": "More rows or seeds may show it to be above rank {best}.",
    "change.lowest_not_above": (
        "Rank {rank} takes its place once it is not measurably above the lowest; its interval begins at {low:nats}."
    ),
    "change.other_enough_from": "Rank {rank} is enough from a tolerance of {tolerance:nats} on.",
    "change.enough_from": "It is shown to be enough from a tolerance of {tolerance:nats} on.",
    "change.not_enough_below": "Below a tolerance of {tolerance:nats} it is no longer shown to be enough.",
    "change.other_from": "Rank {rank} takes its place from a tolerance of {tolerance:nats} on.",
    "change.inadequate_below": ("Below a tolerance of {tolerance:nats} it is shown to be worse than the tolerance."),
    "change.all_within_limits": "Every rank is within the limits.",
    "change.beyond_limits": "Beyond the limits: {needs:semicolons}.",
    "change.beyond_by": "rank {rank} by its {what:list}",
    "change.without_limits": "Without limits the efficient choice is rank {rank}.",
    "change.may_be_inadequate": "More rows or seeds may show it to be worse than the tolerance.",
}
