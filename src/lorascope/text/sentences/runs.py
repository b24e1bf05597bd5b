"""Sentences about how a study ran: its rows, its model, its trials."""

from lorascope.text.sentences.plural import Plural

RUNS: dict[str, str | Plural] = {
    "verbatim": "{text}",
    "asked": "as asked",
    "dtype.cpu_faster": "this CPU multiplies bfloat16 {ratio:.1f} times as fast as float32",
    "dtype.cpu_instructions": "this CPU has instructions that multiply bfloat16",
    "dtype.cpu_slower": "this CPU multiplies bfloat16 only {ratio:.1f} times as fast as float32",
    "dtype.gpu_bfloat16": "the GPU supports bfloat16",
    "dtype.gpu_float32": "the GPU does not support bfloat16",
    "kernels.agree": "{how}; {modules} modules replaced, logits agree to {difference:.1e} on this model",
    "kernels.compiled": "compiled with {compiler}",
    "kernels.cpu_only": "the compiled kernels are for CPUs, and this runs on {device}",
    "kernels.differ": "logits computed by the compiled kernels differ by {difference:.1%} on this model",
    "kernels.linux_only": "the compiled kernels are for Linux",
    "kernels.no_compiler": "no C++ compiler is here",
    "kernels.not_compiled": "{compiler} could not compile them: {error}",
    "kernels.not_loaded": "they could not be built and loaded: {error}",
    "kernels.refused": "this model cannot be computed by the compiled kernels ({error})",
    "kernels.timeout": "{compiler} did not compile them in {seconds} seconds",
    "note.no_base_dropout": "The frozen base runs without its own dropout ({used}).",
    "note.no_kernels": "Steps are computed without compiled kernels, which takes longer ({reason}).",
    "note.no_sharing": (
        "Every row computes its prefix by itself, although share_prefixes is always: sharing needs packing and "
        "compiled kernels ({reason})."
    ),
    "packing.agrees": "packed logits agree with the model's own",
    "packing.agrees_within": "packed and padded logits agree to {difference:.1e} on this model",
    "packing.differs": "packed logits differ from padded ones by {difference:.1%} on this model",
    "packing.refused": "this model cannot take packed rows ({error})",
    "plan.odd_times": (
        "A larger rank is predicted to be faster than a smaller one: the speed of this machine changed while it was "
        "timed. Plan again when it is idle."
    ),
    "rank.above_layers": "Rank {rank} is more than the update of some layers can have ({layers}: {limit} at most).",
    "rows.blank": "Rows of {split!r} without text, dropped from {rows:,}: {count:,}.",
    "rows.eval_repeats": "Held-out rows that repeat another one exactly, dropped: {count:,}.",
    "rows.fewer_held_out": "Held-out rows, instead of {asked}, as rows of one prompt stay together: {count}.",
    "rows.no_target": (
        "Rows of {split!r} without a target token within max_length ({tokens} tokens), dropped from {rows:,}: "
        "{count:,}."
    ),
    "rows.shared_prompt": "Training rows with the prompt of a held-out row, dropped: {count:,}.",
    "rows.train_repeats": "Training rows that repeat another row exactly, kept: {count:,}.",
    "rows.truncated": "Rows of {split!r} cut at max_length ({tokens} tokens), of {rows:,}: {count:,}.",
    "trial.behind": "held-out loss {loss:.4f} after step {step}, the best learning rate's {lowest:.4f}",
    "trial.eval_not_finite": "the held-out loss after step {step} is not finite",
    "trial.exploded": "the loss of step {step} exploded ({loss:.4g} nats a token)",
    "trial.gradient_not_finite": "the gradient of step {step} is not finite",
    "trial.oom": (
        "{error} (memory does not hold this trial alone: leave the rank out, adapt fewer layers (target_modules), "
        "or shorten rows (max_length))"
    ),
}
