"""After training: how much of each rank was used, what the largest one is worth when it is cut, what was forgotten.

Every part is stored when it is done and skipped when it is stored, so that an interrupted examination goes on.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch

from lorascope.data.forgetting_text import ForgettingText
from lorascope.engine.evaluate import example_nats
from lorascope.engine.oom import is_out_of_memory
from lorascope.measure.memory import release_memory
from lorascope.modeling.adapters.adapter import Adapter, AdapterShape, attach
from lorascope.modeling.adapters.peft_io import read_updates
from lorascope.modeling.adapters.svd import Update, principal, principal_updates
from lorascope.modeling.packing.packed_layout import BASE_ONLY
from lorascope.records import BASE_MODEL, ForgettingRecord, SpectrumRecord, TruncationRecord
from lorascope.run.adapters import best_trials
from lorascope.run.prepare import PreparedStudy
from lorascope.run.progress import Progress
from lorascope.spec.schema import NO_TEXT, StudySpec
from lorascope.store import StudyStore
from lorascope.store.folder import StudyFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class _Missing:
    """What has not been examined, by trial; empty when all is done."""

    spectra: tuple[str, ...]
    forgetting: tuple[str, ...]
    """The base model first, where it is missing."""
    cut: str
    """The trial of the largest rank."""
    cuts: tuple[int, ...]
    """Ranks that trial's adapter is to be cut to."""

    def __bool__(self) -> bool:
        return bool(self.spectra or self.forgetting or self.cuts)


def is_examined(place: StudyFolder, store: StudyStore, spec: StudySpec) -> bool:
    """Say whether all that the study asks to be examined is stored."""
    return not _missing(place, store, spec, None)


@dataclass(frozen=True, kw_only=True, eq=False)
class Examination:
    """What examining a study takes."""

    study: PreparedStudy
    store: StudyStore
    place: StudyFolder
    progress: Progress
    check_stop: Callable[[], None]

    def execute(self) -> None:
        """Examine every rank's best trial that finished; where memory runs out, say so and leave the rest out."""
        generic = self.study.generic
        missing = _missing(self.place, self.store, self.study.spec, generic.sha256 if generic else None)
        attach(self.study.frozen.layers, [])
        release_memory(self.study.device)
        try:
            for trial_id in missing.spectra:
                self.check_stop()
                self._spectrum(trial_id)
            if generic is not None:
                for trial_id in missing.forgetting:
                    self._forgetting(trial_id, generic)
            if missing.cuts:
                self._truncation(missing.cut, missing.cuts)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self.progress.note(f"not all could be examined, as memory ran out ({error}); run again to try once more")
        finally:
            attach(self.study.frozen.layers, [])

    def _spectrum(self, trial_id: str) -> None:
        self.progress.phase(f"examining {trial_id}: singular values")
        self.store.put_all(
            [
                SpectrumRecord(trial_id=trial_id, layer=layer, singular_values=tuple(principal(update)[1].tolist()))
                for layer, update in self._updates(trial_id).items()
            ]
        )

    def _forgetting(self, trial_id: str, generic: ForgettingText) -> None:
        self.progress.phase(f"examining {trial_id or 'the base'}: loss on the generic text")
        if trial_id != BASE_MODEL:
            self._attach(self._updates(trial_id))
        nats, seconds = example_nats(
            self.study.frozen,
            BASE_ONLY if trial_id == BASE_MODEL else 0,
            generic.windows,
            self.study.spec,
            check_stop=self.check_stop,
        )
        self.store.put(
            ForgettingRecord(
                trial_id=trial_id,
                text=self.study.spec.forgetting_text,
                text_hash=generic.sha256,
                window_nats=nats,
                window_target_tokens=tuple(window.n_targets for window in generic.windows),
                seconds=seconds,
            )
        )

    def _truncation(self, trial_id: str, ranks: tuple[int, ...]) -> None:
        self.progress.phase(f"examining {trial_id}: cutting to smaller ranks")
        whole = principal_updates(self._updates(trial_id))
        held_out = self.study.splits.eval
        for rank in ranks:
            self.progress.phase(f"examining {trial_id}: held-out loss when cut to rank {rank}")
            self._attach({layer: update.first(rank) for layer, update in whole.items()})
            nats, seconds = example_nats(self.study.frozen, 0, held_out, self.study.spec, check_stop=self.check_stop)
            self.store.put(
                TruncationRecord(
                    trial_id=trial_id,
                    rank=rank,
                    example_nats=nats,
                    example_target_tokens=tuple(example.n_targets for example in held_out),
                    seconds=seconds,
                )
            )

    def _updates(self, trial_id: str) -> dict[str, Update]:
        return read_updates(self.place.trial_adapter(trial_id))

    def _attach(self, updates: Mapping[str, Update]) -> None:
        """Make these updates the model's one adapter."""
        frozen = self.study.frozen
        some = next(iter(updates.values()))
        shape = AdapterShape(rank=len(some.A), scale=some.scale, dropout=0.0, seed=0)
        adapter = Adapter(frozen.layers, shape, compute_dtype=frozen.model.dtype)
        with torch.no_grad():
            for name, layer in adapter.layers.items():
                layer.A.copy_(updates[name].A)
                layer.B.copy_(updates[name].B)
        attach(frozen.layers, [adapter])


def cut_ranks(top: int, trained: Iterable[int]) -> tuple[int, ...]:
    """List the powers of two and the trained ranks below the top one, ascending."""
    powers = (2**power for power in range((top - 1).bit_length()))
    return tuple(sorted({*powers, *trained} - {top}))


def _missing(place: StudyFolder, store: StudyStore, spec: StudySpec, text_hash: str | None) -> _Missing:
    """Compare what is stored with what should be; losses on another text than ``text_hash`` names do not count.

    Without a ``text_hash`` those on any one text do, since the text need not be there to say that all is done.
    """
    best = best_trials(place, store)
    examined = {record.trial_id for record in store.read(SpectrumRecord)}
    known = {record.trial_id: record.text_hash for record in store.read(ForgettingRecord)}
    current = text_hash or known.get(BASE_MODEL)
    wanted = (BASE_MODEL, *best.values()) if best and spec.forgetting_text != NO_TEXT else ()
    top = max(best, default=1)
    done = {record.rank for record in store.read(TruncationRecord) if record.trial_id == best.get(top)}
    return _Missing(
        spectra=tuple(trial_id for trial_id in best.values() if trial_id not in examined),
        forgetting=tuple(trial_id for trial_id in wanted if trial_id not in known or known[trial_id] != current),
        cut=best.get(top, BASE_MODEL),
        cuts=tuple(rank for rank in cut_ranks(top, best) if rank not in done) if spec.truncation else (),
    )
