"""Sentences of the cautions."""

from lorascope.text.sentences.plural import Plural

CAUTIONS: dict[str, str | Plural] = {
    "caution.not_begun": "The study has not begun.",
    "caution.unfinished": (
        "The study is not finished: {trials:list} did not end. Run the same command again to continue."
    ),
    "caution.ended_early": "Trials that ended early are left out of the comparison: {trials:semicolons}.",
    "caution.diverged": "{trial} diverged after {steps} steps",
    "caution.out_of_memory": "{trial} ran out of memory after {steps} steps",
    "caution.failed": "{trial} failed after {steps} steps",
    "caution.no_improvement": "Training did not lower the held-out loss of the base model: {trials:list}.",
    "caution.eval_loss_rising": (
        "The held-out loss rose again before the end, as in overfitting: {trials:list} nats a token."
    ),
    "caution.lowest_and_last": "{trial} (lowest {lowest:nats}, last {last:nats})",
    "caution.one_learning_rate": (
        "All ranks were trained at one learning rate, {rate:g}; {reason}. A difference between ranks may be one of "
        "learning rates."
    ),
    "caution.constant_scale": "at a constant scale (alpha = {multiple:g} r) a larger rank takes larger steps",
    "caution.rslora": "the best learning rate may still depend on the rank",
    "caution.own_alphas": "each rank has an alpha and so a scale of its own",
    "caution.fixed_alpha": "at a fixed alpha of {alpha:g} the scale alpha / r is smaller for a larger rank",
    "caution.learning_rate_at_edge": (
        "The best learning rate lies at the edge of those tried for {ranks:list}; a better one may lie outside."
    ),
    "caution.rate_of_rates": "rank {rank} ({rate:g} of {lowest:g} to {highest:g})",
    "caution.one_seed": (
        "One seed was run: the intervals cover the choice of held-out rows only. A second seed would show whether a "
        "difference between ranks is more than this seed's; three or more make its interval narrow."
    ),
    "caution.few_eval_examples": ("Only {rows} rows were held out: the intervals are rough (better {enough} or more)."),
    "caution.short_run": (
        "The run is short: {steps} steps, {epochs:.2f} passes over the training rows. What a larger rank could still "
        "learn may not show."
    ),
    "caution.orders_disagree": (
        "Rank {rank} has the lowest training loss, but on held-out rows it is measurably worse than rank {best}."
    ),
    "caution.underpowered": (
        "Too few held-out rows or seeds for the effect asked about: the interval of rank {rank} reaches {half:nats} to "
        "either side, and the tolerance is {tolerance:g} nats a token. Detecting a difference this small needs about "
        "{times:,.1f}x as many: {rows:,} held-out rows."
    ),
    "caution.underpowered_seeds": (
        "Too few held-out rows or seeds for the effect asked about: the interval of rank {rank} reaches {half:nats} to "
        "either side, and the tolerance is {tolerance:g} nats a token. Detecting a difference this small needs about "
        "{times:,.1f}x as many: {rows:,} held-out rows, or {more_seeds} seeds in place of {seeds} where seeds make "
        "most of it."
    ),
    "caution.below_capacity": (
        "The run is shorter than where low ranks are known to fall behind. By a rule of thumb rank {rank} can hold "
        "{capacity:count} bits ({bits:g} a parameter), and the roughly {tokens:count} different target tokens trained "
        "on hold at most {held:count} ({bits_per_token:.2f} bits a token, the base model's held-out loss). From about "
        "{enough:count} target tokens on, more rank may help where it does not here."
    ),
    "caution.environment_changed": (
        "The study was continued in another environment ({changes:semicolons}). Losses before and after may differ in "
        "rounding, and times and memory were measured where each rank was first run."
    ),
    "caution.changed": "{name} {before}, later {after}",
    "caution.absent": "absent",
    "caution.version": "{version} at {commit}",
    "caution.processor": "processor",
    "caution.device": "device",
    "caution.threads": "threads",
}
