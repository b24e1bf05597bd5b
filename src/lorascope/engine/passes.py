"""How the rows of a step's trials are cut into passes through the model."""

from collections.abc import Sequence

from lorascope.data.batches import pass_tokens, split_passes
from lorascope.engine.forward import PassRow


def plan_passes(rows: Sequence[Sequence[PassRow]], *, tokens_per_pass: int, padded: bool) -> list[list[PassRow]]:
    """Cut each trial's rows into passes, then join neighbours that fit into one.

    Args:
        rows: the rows of each trial, one sequence a trial.
        tokens_per_pass: most tokens of a pass, padding counted; a longer row goes alone.
        padded: whether the model takes padded rows.

    Returns:
        Passes in which the rows of a trial are neighbours. Few passes a trial keep its weight gradients from being
        added up more often than needed.
    """
    passes: list[list[PassRow]] = []
    for trial_rows in rows:
        lengths = [row.example.n_tokens for row in trial_rows]
        for chosen in split_passes(lengths, tokens_per_pass=tokens_per_pass, padded=padded):
            part = [trial_rows[i] for i in chosen]
            if passes and _tokens(passes[-1] + part, padded=padded) <= tokens_per_pass:
                passes[-1].extend(part)
            else:
                passes.append(part)
    return passes


def _tokens(rows: Sequence[PassRow], *, padded: bool) -> int:
    return pass_tokens([row.example.n_tokens for row in rows], padded=padded)
