"""Sentences of the verdict."""

from lorascope.text.sentences.plural import Plural

VERDICT: dict[str, str | Plural] = {
    "verdict.one_rank": "Only rank {rank} has a held-out loss, so there is nothing to compare it with.",
    "verdict.few": "Too short to tell: {steps} steps, {rows} held-out rows; a verdict needs {least} of each.",
    "verdict.still_falling": (
        "Too short to tell: the held-out loss of rank {rank}, the lowest so far, still falls as fast as over the whole "
        "run. Train for more steps."
    ),
    "verdict.equivalent": (
        "No measurable difference between ranks {first} to {last}: each is shown to be within {tolerance:g} nats a "
        "token of every other ({p:chance}), and none to be worse than another. The smallest, rank {first}, is enough."
    ),
    "verdict.unsettled": Plural(
        one="Too little data to tell whether {ranks:ranks} is enough, that is within {tolerance:g} nats a token of the "
        "lowest loss.",
        many="Too little data to tell whether {ranks:ranks} are enough, that is within {tolerance:g} nats a token of "
        "the lowest loss.",
        count="ranks",
    ),
    "verdict.smallest_shown": "Rank {rank} is the smallest rank shown to be enough.",
    "verdict.more_seeds": "Run more seeds.",
    "verdict.more_rows": "Hold out more rows, or train for more steps.",
    "verdict.adequate_and_lowest": (
        "Rank {rank} is the smallest adequate rank ({p:chance}); its held-out loss is the lowest of all."
    ),
    "verdict.adequate": (
        "Rank {rank} is enough ({p:chance}): its held-out loss exceeds that of rank {best}, the lowest, by at most "
        "{high:nats} nats a token (upper end of the 95% interval; tolerance {tolerance:g})."
    ),
    "verdict.above_another": "That it is above another rank at all is shown too, {excess:interval}.",
    "verdict.smaller": "Rank {rank} exceeds the lowest by {excess:interval}.",
    "verdict.closest_smaller": (
        "Of the smaller ranks, {rank} comes closest: it exceeds the lowest by {excess:interval}."
    ),
    "verdict.not_shown": Plural(
        one="That {ranks:ranks} is not enough is likely, but not shown.",
        many="That {ranks:ranks} are not enough is likely, but not shown.",
        count="ranks",
    ),
    "verdict.of_seeds": ("{verdict} The intervals cover the choice of held-out rows and of seeds ({seeds} seeds)."),
    "verdict.of_one_seed": (
        "In seed {seed} alone, {verdict:lower} The intervals cover the choice of held-out rows, not of seeds: ranks "
        "may stand otherwise in another. A second seed would show how far a difference moves from one to the next, and "
        "each further one makes its interval narrower."
    ),
    "verdict.noise_floor": Plural(
        one="Noise floor: two seeds of the same rank end {typical:nats} nats a token apart (root mean square of "
        "{pairs} pair).",
        many="Noise floor: two seeds of the same rank end {typical:nats} nats a token apart (root mean square of "
        "{pairs} pairs).",
        count="pairs",
    ),
    "verdict.so_far": "So far, at step {step} of {total}: {verdict:lower}",
    "verdict.all_ended_early": "No rank can be compared: every trial ended early.",
    "verdict.one_row": "No rank can be compared: an interval needs at least two held-out rows.",
    "verdict.no_common_seed": "No rank can be compared: no seed survived in all ranks.",
    "verdict.different_steps": ("No rank can be compared: the last finite held-out losses are of different steps."),
    "verdict.not_finished": "Not finished: {ended} of {total} trials have their final held-out loss.",
}
