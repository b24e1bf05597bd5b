"""Audit an adapter: its held-out loss whole and truncated, its spectra, what it forgot, and a few answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorascope.analysis.adapters.audit import ADAPTER, AuditRecords, summarize_audit
from lorascope.analysis.adapters.audit_schema import AdapterAudit
from lorascope.atomic import new_folder
from lorascope.data.dataset import Example
from lorascope.engine.evaluate import example_nats
from lorascope.errors import InputError
from lorascope.modeling.adapters.stored_adapter import StoredAdapter
from lorascope.modeling.adapters.svd import Update, principal
from lorascope.modeling.packing.packed_layout import BASE_ONLY
from lorascope.records import BASE_MODEL, ForgettingRecord, SampleAnswer, SpectrumRecord
from lorascope.run.adapters import make_adapter
from lorascope.run.audit_setup import PreparedAudit, plain_adapter, prepare_audit
from lorascope.run.samples import Answerer
from lorascope.search.analyses import truncation_ranks
from lorascope.store.folder import check_writable


def audit_adapter(
    folder: Path, given: Mapping[str, object], tell: Callable[[str], None] = lambda _: None
) -> AdapterAudit:
    """Measure how much of an adapter's rank is used.

    Args:
        folder: of the adapter, with PEFT's two files. Where it lies in a study's folder, the study says which base and
            held-out rows it has.
        given: fields of a study, such as ``dataset`` and ``model``.
        tell: told of each phase.

    Raises:
        InputError: adapter, base or rows cannot be used, or do not belong together.
    """
    return summarize_audit(_Auditor(prepare_audit(folder, given, tell), tell).records(folder))


@dataclass(frozen=True)
class _Auditor:
    audit: PreparedAudit
    tell: Callable[[str], None]

    def records(self, folder: Path) -> AuditRecords:
        audit, spec = self.audit, self.audit.spec
        found = audit.stored.updates()
        updates = {name: found[name] for name in audit.frozen.layers}
        rank = max(len(update.A) for update in updates.values())
        self.tell("singular values")
        principals = {name: principal(update) for name, update in updates.items()}
        cuts = {name: update for name, (update, _) in principals.items()}
        nats = {0: self._base_nats(), rank: self._nats(updates, f"rank {rank}")}
        forgetting = self._forgetting()
        answers = self._answers()
        for smaller in truncation_ranks(rank, ()):
            first = {name: update.first(smaller) for name, update in cuts.items()}
            nats[smaller] = self._nats(first, f"truncated to rank {smaller}")
        return AuditRecords(
            adapter=str(folder),
            model=spec.model,
            dataset=" + ".join(spec.dataset_names),
            rank=rank,
            layers=len(updates),
            parameters=sum(tensor.numel() for tensor in audit.stored.tensors.values()),
            tolerance=spec.tolerance,
            target_tokens=tuple(row.n_targets for row in audit.splits.eval),
            nats=nats,
            spectra=[
                SpectrumRecord(trial_id=ADAPTER, layer=name, singular_values=tuple(values.tolist()))
                for name, (_, values) in principals.items()
            ],
            forgetting=forgetting,
            prompts=[prompt.shown for prompt in audit.prompts],
            answers=answers,
            notes=audit.notes,
        )

    def _base_nats(self) -> tuple[float, ...]:
        self.tell("held-out loss of the base")
        return self._evaluated(BASE_ONLY, self.audit.splits.eval)

    def _nats(self, updates: Mapping[str, Update], what: str) -> tuple[float, ...]:
        """Attach these updates, and return the nats of each held-out row."""
        self.tell(f"held-out loss, {what}")
        self.audit.frozen.attach([make_adapter(self.audit.frozen, updates, self.audit.stored.modules())])
        return self._evaluated(0, self.audit.splits.eval)

    def _evaluated(self, adapter: int, rows: Sequence[Example]) -> tuple[float, ...]:
        return example_nats(self.audit.frozen, adapter, rows, self.audit.spec, check_stop=lambda: None)[0]

    def _forgetting(self) -> dict[str, ForgettingRecord]:
        """Return the losses of base and attached adapter on the generic text."""
        text = self.audit.text
        if text is None:
            return {}
        self.tell("loss on the generic text")
        return {
            name: ForgettingRecord(
                trial_id=name,
                text=self.audit.spec.forgetting_text,
                text_hash=text.sha256,
                window_nats=self._evaluated(adapter, text.windows),
                window_target_tokens=tuple(window.n_targets for window in text.windows),
                seconds=0.0,
            )
            for name, adapter in ((BASE_MODEL, BASE_ONLY), (ADAPTER, 0))
        }

    def _answers(self) -> list[SampleAnswer]:
        """Return the answers of base and attached adapter to a few held-out prompts."""
        audit = self.audit
        if audit.prompts:
            self.tell(f"answering {len(audit.prompts)} held-out prompts")
        answerer = Answerer(frozen=audit.frozen, spec=audit.spec, tokenizer=audit.tokenizer, end_ids=audit.end_ids)
        both = {BASE_MODEL: BASE_ONLY, ADAPTER: 0}
        return [answer for prompt in audit.prompts for answer in answerer.answers(prompt, both)]


def check_truncation(folder: Path, rank: int, to: Path, given: Mapping[str, object]) -> StoredAdapter:
    """Read the adapter to truncate, and check that it can be written.

    Raises:
        InputError: it cannot be read or truncated to this rank, or the target exists or cannot be written.
    """
    if to.exists():
        raise InputError(f"{to} exists already", remedy="choose a new folder with --to")
    check_writable(to, flag="--to")
    stored = plain_adapter(folder, given)
    largest = max(len(update.A) for update in stored.updates().values())
    if not 1 <= rank < largest:
        raise InputError(
            f"the adapter has rank {largest}, and cannot be truncated to rank {rank}",
            remedy=f"give --truncate a rank from 1 to {largest - 1}" if largest > 1 else "leave --truncate out",
        )
    return stored


def write_truncated(stored: StoredAdapter, rank: int, to: Path) -> None:
    """Write the best adapter of a smaller rank, layer by layer, to a folder that does not exist."""
    with new_folder(to) as made:
        stored.truncated(rank).write(made)
