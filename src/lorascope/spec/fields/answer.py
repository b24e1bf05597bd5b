"""Fields of the analysis and of what is measured for it."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from lorascope.scoring.names import TOKEN_ACCURACY, find_problem, split_names
from lorascope.spec.fields.types import (
    Count,
    Duration,
    Fields,
    NonEmpty,
    Positive,
    Size,
    contradiction,
    no_duplicates,
)
from lorascope.units import parse_seconds

Preference = Literal["value", "loss", "time", "memory"]
Cost = Literal["off", "quick", "full"]
BUILTIN_TEXT = "builtin:python-reference"
NO_TEXT = "none"


class AnswerFields(Fields):
    """What counts as a difference, which limits hold, and what is measured beside training."""

    tolerance: Positive = 0.005
    """A rank is adequate if no other has a held-out loss lower by more than this, in nats per token. 0.005 nats are
    0.5 % of perplexity."""

    time_budget: Duration | None = None
    """Time that the whole run may take, such as ``20min`` or ``1h30min``; unless they are given, ``learning_rates`` are
    then ``auto``, and the study goes on ``until_decided``. The pace is measured first; it decides how many steps are
    trained (at most ``num_train_epochs``, or ``max_steps`` if given), how many seeds, and what is measured and examined
    besides."""

    until_decided: bool = False
    """Look at the data after three seeds, and go on while the verdict is open. The next look has further held-out rows
    (up to 1024: those that a slice in ``split`` leaves over, else at most a fifth of the rows), or one more seed (up to
    eight) of the ranks in question, whichever tells more for its time. The chances of error hold over all looks."""

    convergence_band: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """A training loss has converged once its moving average stays this close to its final level, as a share of it."""

    prefer: Preference = "value"
    """The need that decides which rank to use: best ``value`` (the smallest rank shown to be enough; where none is, a
    doubling of the rank must gain a fifth of ``tolerance``), lowest ``loss``, least ``time`` or least ``memory``."""

    max_memory: Size | None = None
    """Memory limit of recommended ranks when trained solo, such as ``8GB`` or ``7.5GiB``."""

    max_seconds: Positive | None = None
    """Time limit of recommended ranks when trained solo, in seconds."""

    max_adapter_mb: Positive | None = None
    """Size limit of the adapters of recommended ranks, in MB (10^6 bytes)."""

    cost: Cost = "quick"
    """Solo runs, which measure the time and memory of each rank before training. ``quick``: two runs per rank, with
    four steps and one evaluation micro-batch in all; ``full``: four runs, 24 steps; ``off``: none. Runs of the ranks
    alternate. A finished study may be given more."""

    truncation: bool = True
    """After training, truncate the largest rank's adapter by singular values to ranks 1, 2, 4, ... and to the other
    ranks, and evaluate each. Costs one held-out evaluation each: for ranks 8 and 256, eight."""

    forgetting_text: NonEmpty = BUILTIN_TEXT
    """Text whose loss before and after training shows what was forgotten: a UTF-8 file, ``builtin:python-reference``
    (English prose that ships with Python) or ``none``. Costs one evaluation of at most 32 windows of 256 tokens for the
    base and for each rank."""

    samples: Annotated[int, Field(ge=0, strict=True)] = 8
    """After training, so many held-out prompts are answered by the base and by each rank at its best learning rate, to
    be read beside the true answers; 0 for none. Where a time budget is short, fewer. Rows without a prompt are
    continued from their middle. A finished study may be given more."""

    max_new_tokens: Count = 64
    """The most tokens of each of these answers."""

    sample_temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """0 writes the likeliest token each time (greedy). Above 0, tokens are drawn from softmax(logits / temperature),
    with the same random numbers for the base and every rank."""

    metrics: tuple[NonEmpty, ...] = ()
    """After training, score greedy answers to held-out prompts, those of the base and of every seed of each rank, and
    compare the ranks: ``exact_match``, ``contains``, ``regex:PATTERN``, ``rouge_l``, ``chrf``, ``python_tests`` (runs
    the code of answers), or ``FILE.py:FUNCTION``, a function of prompt, true answer and answer that gives 0 to 1.
    Repeat the flag, or use commas. All held-out rows with a completion are scored; where a time budget is short, fewer.
    ``token_accuracy`` is always there. A finished study may be given more."""

    lm_eval: tuple[NonEmpty, ...] = ()
    """After training, run benchmarks of EleutherAI's harness (``pip install 'lorascope[lm-eval]'``) with the base and
    every seed of each rank, and compare the ranks document by document: names of its tasks or groups, such as
    ``arc_easy``, or a task's YAML file. Repeat the flag, or use commas. Where a time budget is short, fewer. A finished
    study may be given more."""

    lm_eval_limit: Count | None = None
    """The most documents of each of these tasks, its first ones; without it all."""

    @field_validator("metrics", "lm_eval", mode="before")
    @classmethod
    def _split_names(cls, given: object) -> object:
        """Take one text for a list, and read commas; a pattern is whole."""
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
            return given
        return tuple(name for text in texts for name in split_names(text))

    @field_validator("metrics")
    @classmethod
    def _check_metrics(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        problem = next(filter(None, map(find_problem, names)), None)
        if problem is not None:
            raise contradiction(*problem)
        return no_duplicates(names)

    @field_validator("lm_eval")
    @classmethod
    def _check_lm_eval(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return no_duplicates(names)

    @property
    def scored_metrics(self) -> tuple[str, ...]:
        """The metrics that need answers."""
        return tuple(name for name in self.metrics if name != TOKEN_ACCURACY)

    @model_validator(mode="before")
    @classmethod
    def _read_bare_off(cls, given: object) -> object:
        """Take YAML's bare ``off``, which is false to it, for the word."""
        return {**given, "cost": "off"} if isinstance(given, dict) and given.get("cost") is False else given

    @model_validator(mode="after")
    def _limits_need_solo_runs(self) -> Self:
        limits = [name for name in ("max_memory", "max_seconds") if getattr(self, name) is not None]
        if limits and self.cost == "off":
            raise contradiction(
                f"{limits[0]} needs the solo runs, which cost off skips",
                "choose cost quick or full",
            )
        return self

    @property
    def budget_seconds(self) -> float | None:
        """The time budget; None without one."""
        return None if self.time_budget is None else parse_seconds(self.time_budget)
