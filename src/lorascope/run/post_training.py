"""After training: spectra of each rank's adapter, the largest one truncated to smaller ranks, forgetting,
answers to held-out prompts with their scores, and benchmarks.

Every record is stored when it is made, and what is stored is not made again, so that an interrupted analysis goes on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from lorascope.data.forgetting_text import ForgettingText
from lorascope.engine.evaluate import example_nats
from lorascope.engine.oom import is_out_of_memory
from lorascope.measure.memory import release_memory
from lorascope.modeling.adapters.peft_io import read_updates
from lorascope.modeling.adapters.svd import Update, principal, principal_updates
from lorascope.modeling.packing.packed_layout import BASE_ONLY
from lorascope.records import (
    BASE_MODEL,
    Arm,
    BudgetRecord,
    ForgettingRecord,
    SampleAnswer,
    SamplePrompt,
    ScoreRecord,
    SpectrumRecord,
    TruncationRecord,
)
from lorascope.run.adapters import attach_updates, best_trials, scored_trials
from lorascope.run.benchmarks import run_benchmarks
from lorascope.run.context import RunContext
from lorascope.run.samples import answer_prompts
from lorascope.run.scores import score_answers
from lorascope.search.analyses import AnalysisRecord, pending_analyses
from lorascope.search.work import analysis_work, spectrum_work, text_work
from lorascope.store import StudyStore


@dataclass(frozen=True)
class PostTraining:
    """Analyses the adapter that stands for each rank."""

    run: RunContext

    def execute(self) -> None:
        """Make the analyses that are not stored yet; where memory runs out, say so and leave the rest out."""
        run, text = self.run, self.run.study.forgetting_text
        best, stored = best_trials(run.folder, run.store), stored_analyses(run.store)
        budget = run.store.read_one(BudgetRecord)
        pending = pending_analyses(
            run.study.spec,
            best,
            stored,
            scored=scored_trials(run.folder, run.store),
            n_eval=run.study.resolved.eval_examples,
            text_hash=text.sha256 if text else None,
            left_out=budget.left_out if budget else (),
            tests={place: row.tests for place, row in run.study.scored_rows.items()},
            harness=[one.record for one in run.study.benchmarks],
        )
        run.study.frozen.attach([])
        release_memory(run.study.device)
        run.progress.expect(analysis_work(run.study.spec, run.progress.sizes, pending, self._arms))
        try:
            for trial_id in pending.spectra:
                run.check_stop()
                if not run.allows("spectra", spectrum_work(run.progress.sizes, self._arms[trial_id])):
                    run.leave_out("spectra", "singular values")
                    break
                self._spectrum(trial_id)
            if text is not None:
                for trial_id in pending.forgetting:
                    if not run.allows("forgetting_text", text_work(run.progress.sizes, self._arms.get(trial_id))):
                        run.leave_out("generic_text", "losses on the generic text")
                        break
                    self._forgetting(trial_id, text)
            for trial_id in dict.fromkeys(trial_id for trial_id, _ in pending.truncations):
                self._truncations(trial_id, [rank for own, rank in pending.truncations if own == trial_id])
            answer_prompts(run, pending.samples, self._arms)
            score_answers(run, pending.scores, self._arms)
            run_benchmarks(run, pending.benchmarks, self._arms)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            run.tracker.note(f"not all could be examined, as memory ran out ({error}); run again to try once more")
        finally:
            run.study.frozen.attach([])

    def _spectrum(self, trial_id: str) -> None:
        self.run.tracker.phase(f"examining {trial_id}: singular values")
        self.run.store.put_all(
            [
                SpectrumRecord(trial_id=trial_id, layer=layer, singular_values=tuple(principal(update)[1].tolist()))
                for layer, update in self._updates(trial_id).items()
            ]
        )
        self.run.progress.lap("spectra", spectrum_work(self.run.progress.sizes, self._arms[trial_id]))

    def _forgetting(self, trial_id: str, text: ForgettingText) -> None:
        run = self.run
        run.tracker.phase(f"examining {trial_id or 'the base'}: loss on the generic text")
        if trial_id != BASE_MODEL:
            attach_updates(run, trial_id, self._updates(trial_id))
        adapter = BASE_ONLY if trial_id == BASE_MODEL else 0
        nats, seconds = example_nats(run.study.frozen, adapter, text.windows, run.study.spec, check_stop=run.check_stop)
        run.store.put(
            ForgettingRecord(
                trial_id=trial_id,
                text=run.study.spec.forgetting_text,
                text_hash=text.sha256,
                window_nats=nats,
                window_target_tokens=tuple(window.n_targets for window in text.windows),
                seconds=seconds,
            )
        )
        run.progress.lap("forgetting_text", text_work(run.progress.sizes, self._arms.get(trial_id)))

    def _truncations(self, trial_id: str, ranks: Sequence[int]) -> None:
        run = self.run
        held_out = run.study.splits.eval
        targets, _ = self._arms[trial_id]
        decomposition = spectrum_work(run.progress.sizes, self._arms[trial_id])
        seconds = run.progress.seconds("truncation", run.progress.sizes.evaluation((targets, ranks[0])))
        if not run.clock.allows(seconds + run.progress.seconds("spectra", decomposition)):
            run.leave_out("truncation", "losses of truncated adapters")
            return
        run.tracker.phase(f"examining {trial_id}: truncating to smaller ranks")
        whole = principal_updates(self._updates(trial_id))
        run.progress.lap("spectra", decomposition)
        for rank in ranks:
            if not run.allows("truncation", run.progress.sizes.evaluation((targets, rank))):
                run.leave_out("truncation", "losses of truncated adapters")
                return
            run.tracker.phase(f"examining {trial_id}: held-out loss when truncated to rank {rank}")
            attach_updates(run, trial_id, {layer: update.first(rank) for layer, update in whole.items()})
            nats, seconds = example_nats(run.study.frozen, 0, held_out, run.study.spec, check_stop=run.check_stop)
            run.store.put(
                TruncationRecord(
                    trial_id=trial_id,
                    rank=rank,
                    example_nats=nats,
                    example_target_tokens=tuple(example.n_targets for example in held_out),
                    seconds=seconds,
                )
            )
            run.progress.lap("truncation", run.progress.sizes.evaluation((targets, rank)))

    @cached_property
    def _arms(self) -> dict[str, Arm]:
        """The arm of each trial at its best setting."""
        return scored_trials(self.run.folder, self.run.store)

    def _updates(self, trial_id: str) -> dict[str, Update]:
        return read_updates(self.run.folder.trial_adapter(trial_id))


def stored_analyses(store: StudyStore) -> list[AnalysisRecord]:
    """Return all analyses that are stored."""
    return [
        *store.read(SpectrumRecord),
        *store.read(ForgettingRecord),
        *store.read(TruncationRecord),
        *store.read(SampleAnswer),
        *store.read(SamplePrompt),
        *store.read(ScoreRecord),
    ]
