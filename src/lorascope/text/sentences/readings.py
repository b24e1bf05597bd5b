"""Sentences of the readings: alpha rule, naive baseline, knee, gains and costs of LoRA."""

from lorascope.text.sentences.plural import Plural

READINGS: dict[str, str | Plural] = {
    "alpha.own_best_rates": (
        "Each rank is judged at its own best learning rate, which takes this out as far as the rates tried reach."
    ),
    "alpha.one_rate": "All ranks were trained at one learning rate: a difference may be one of learning rates.",
    "alpha.some_rates": (
        "Not every rank was tried at several learning rates: a difference may be one of learning rates."
    ),
    "alpha.scale_at_rank": "{scale:g} at rank {rank}",
    "alpha.given": "Alpha was given for each rank; the update is multiplied by {scales:list}.",
    "alpha.proportional": "Alpha is {multiple:g} r, so the update of every rank is multiplied by {scale:g}.",
    "alpha.fixed": (
        "Alpha is {alpha:g} for every rank, so the update is multiplied by {formula}: {low_scale:g} at rank {low}, "
        "{high_scale:g} at rank {high}."
    ),
    "alpha.no_theory": "No theory says how the best learning rate then moves with the rank.",
    "alpha.theory_same": (
        "Theory (muA, arXiv 2602.06204) expects the same best learning rate for all ranks; published sweeps (LoRA "
        "Without Regret, 2025) found it to move by less than a factor of 2 from rank 4 to 512."
    ),
    "alpha.theory_proportional": (
        "At one learning rate a larger rank takes larger steps: theory (muA, arXiv 2602.06204) expects the best "
        "learning rate to fall as r^-{power:g}, by a factor of {factor:.1f} from rank {low} to {high}."
    ),
    "alpha.theory": (
        "Theory (muA, arXiv 2602.06204) expects the best learning rate to fall as r^-{power:g}, by a factor of "
        "{factor:.1f} from rank {low} to {high}."
    ),
    "knee.nothing_to_compare": "Fewer than two ranks can be compared, so there is no knee.",
    "knee.none": (
        "No knee up to rank {larger}: the last step, from rank {smaller}, still gains {gain:nats} nats a token for "
        "each doubling."
    ),
    "knee.shown": (
        "The knee is rank {knee}: beyond it the most that a doubling gains is {most:nats} nats a token, which is below "
        "the tolerance of {tolerance:g}, and so is its whole 95% interval."
    ),
    "knee.estimated": (
        "The knee is rank {knee}: beyond it the most that a doubling gains is {most:nats} nats a token, which is below "
        "the tolerance of {tolerance:g}, but its interval reaches {reach:nats}."
    ),
    "knee.before": "Up to it the last doubling gains {gain:nats}.",
    "naive.one_rank": "There is one rank, so there is nothing to order.",
    "naive.no_order": "There is no naive reading: at no learning rate do all ranks have a loss at one step.",
    "naive.script": (
        "The usual script, with one learning rate ({rate:g}) and the training loss at the end, would choose rank "
        "{rank}: {ranks:list}."
    ),
    "naive.script_cut_short": (
        "The usual script, with one learning rate ({rate:g}) and the training loss after {steps} steps (the most that "
        "all ranks were trained for at one rate), would choose rank {rank}: {ranks:list}."
    ),
    "naive.rank": "rank {rank}",
    "naive.rank_loss": "rank {rank} {loss:nats}",
    "naive.rank_at_rate": "rank {rank} {loss:nats} (at {rate:g})",
    "naive.held_out": "Held-out rows order the ranks otherwise at that rate: {ranks:list}.",
    "naive.best_rates": "Each at its own best rate, held-out rows order them: {ranks:list}.",
    "naive.same_rank": "This study names rank {rank} too.",
    "naive.other_rank": "This study names rank {rank} instead, {reason}.",
    "tradeoff.no_loss": "No rank has a held-out loss yet.",
    "tradeoff.parameters": (
        "Gained at rank {rank}: {share:.2%} of the base model's {parameters:count} parameters are trained, and the "
        "adapter takes {size:bytes}."
    ),
    "tradeoff.memory": (
        "Frozen base, adapter, gradient and optimizer take {size:bytes}; full fine-tuning would take {full:bytes}, a "
        "prediction from {bytes} bytes a parameter (float32 with AdamW). Activations come on top of both."
    ),
    "tradeoff.loss_fell": ("The held-out loss fell by {change:nats} nats a token, from {before:nats} to {after:nats}."),
    "tradeoff.loss_rose": ("The held-out loss rose by {change:nats} nats a token, from {before:nats} to {after:nats}."),
    "tradeoff.full_not_run": ("Full fine-tuning was not run, so what LoRA itself costs in loss is not known here."),
    "tradeoff.cost": "Cost: {text:lower}",
    "tradeoff.cost_against_largest": (
        "Cost: its held-out loss minus that of rank {largest}, the largest, is {excess:interval}."
    ),
}
