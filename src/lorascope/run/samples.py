"""Answers of the base and of each rank's adapter to the same held-out prompts."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from lorascope.data.sample_prompts import PromptTokens, answer_text
from lorascope.engine.forward import FrozenModel
from lorascope.engine.generate import generate
from lorascope.engine.oom import is_out_of_memory
from lorascope.errors import MODEL_ERRORS, InputError, is_own_fault
from lorascope.message import Message
from lorascope.modeling.adapters.peft_io import read_updates
from lorascope.modeling.packing.packed_layout import BASE_ONLY
from lorascope.records import BASE_MODEL, Arm, SampleAnswer
from lorascope.run.adapters import trial_adapter
from lorascope.run.context import RunContext
from lorascope.search.work import sample_work
from lorascope.spec.schema import StudySpec
from lorascope.text.say import say


def answer_prompts(run: RunContext, pending: Sequence[tuple[int, tuple[str, ...]]], arms: Mapping[str, Arm]) -> None:
    """Store the answers to prompts, by their places, that trials have not given yet; fewer where the time is short.

    Args:
        run: the study; its adapters are attached afterwards.
        pending: places of prompts, each with the trials whose adapters are to answer, or ``BASE_MODEL``.
        arms: of each trial.
    """
    spec, prompts = run.study.spec, {prompt.shown.place: prompt for prompt in run.study.prompts}
    if not pending:
        return
    run.tracker.phase(f"answering {len(pending)} held-out prompts")
    answering = Answering(run, spec.sample_temperature)
    slowest: float | None = None
    errors: set[str] = set()
    for place, trial_ids in pending:
        work = sample_work(spec, run.progress.sizes, map(arms.get, trial_ids))
        if not (run.allows("samples", work) if slowest is None else run.clock.allows(slowest)):
            run.leave_out("samples", "answers to further held-out prompts")
            run.progress.expect({"samples": 0.0})
            return
        began = time.perf_counter()
        answers = answering.answers(prompts[place], trial_ids)
        run.store.put_all(answers)
        errors |= {say(answer.error) for answer in answers if answer.error}
        slowest = max(slowest or 0.0, time.perf_counter() - began)
        run.progress.lap("samples", work)
    for error in sorted(errors):
        run.tracker.note(f"the model wrote no answers ({error})")


@dataclass(frozen=True)
class Answering:
    """Answers a study's prompts; keeps the adapters that it made attached."""

    run: RunContext
    temperature: float
    attached: list[str] = field(default_factory=list)
    """Trials whose adapters are attached, in their order."""

    def answers(self, prompt: PromptTokens, trial_ids: Sequence[str]) -> list[SampleAnswer]:
        """Return the answer of each trial; where the model cannot generate, each says why."""
        study = self.run.study
        self._attach([trial_id for trial_id in trial_ids if trial_id != BASE_MODEL])
        answerer = Answerer(
            frozen=study.frozen,
            spec=study.spec.model_copy(update={"sample_temperature": self.temperature}),
            tokenizer=study.tokenizer,
            end_ids=study.end_ids,
            check_stop=self.run.check_stop,
        )
        places = {name: BASE_ONLY if name == BASE_MODEL else self.attached.index(name) for name in trial_ids}
        return answerer.answers(prompt, places)

    def _attach(self, trial_ids: Sequence[str]) -> None:
        if set(trial_ids) <= set(self.attached):
            return
        folder = self.run.folder
        self.run.study.frozen.attach(
            [trial_adapter(self.run, trial_id, read_updates(folder.trial_adapter(trial_id))) for trial_id in trial_ids]
        )
        self.attached[:] = trial_ids


@dataclass(frozen=True, kw_only=True, eq=False)
class Answerer:
    """Answers prompts with the adapters that are attached to a model."""

    frozen: FrozenModel
    spec: StudySpec
    """Says how long answers are, and whether tokens are drawn."""
    tokenizer: PreTrainedTokenizerBase
    end_ids: frozenset[int]
    """Tokens that end an answer."""
    check_stop: Callable[[], None] = lambda: None

    def answers(self, prompt: PromptTokens, adapters: Mapping[str, int]) -> list[SampleAnswer]:
        """Return the answer of each adapter, given as its index by its trial; or each says why there is none."""
        began = time.perf_counter()
        error = None
        try:
            found = self._generate(prompt, list(adapters.values()))
        except (*MODEL_ERRORS, IndexError, InputError) as problem:
            if is_out_of_memory(problem) or (is_own_fault(problem) and not isinstance(problem, InputError)):
                raise
            found = [[] for _ in adapters]
            error = Message("verbatim", text=str(problem).split("\n", maxsplit=1)[0][:300])
        seconds = (time.perf_counter() - began) / len(adapters)
        pairs = zip(adapters, found, strict=True)
        return [self._record(prompt, trial_id, ids, seconds, error) for trial_id, ids in pairs]

    def _generate(self, prompt: PromptTokens, adapters: Sequence[int]) -> list[list[int]]:
        return generate(
            self.frozen,
            prompt.ids,
            adapters,
            max_new_tokens=self.spec.max_new_tokens,
            end_ids=self.end_ids,
            temperature=self.spec.sample_temperature,
            seed=prompt.shown.place,
            check_stop=self.check_stop,
        )

    def _record(
        self, prompt: PromptTokens, trial_id: str, ids: Sequence[int], seconds: float, error: Message | None
    ) -> SampleAnswer:
        ended = bool(ids) and ids[-1] in self.end_ids
        return SampleAnswer(
            trial_id=trial_id,
            place=prompt.shown.place,
            text=answer_text(self.tokenizer, prompt.ids.tolist(), ids[: len(ids) - ended]),
            tokens=len(ids),
            ended=ended,
            max_new_tokens=self.spec.max_new_tokens,
            temperature=self.spec.sample_temperature,
            seconds=seconds,
            error=error,
        )
