"""Solo runs: they alternate between ranks on the same rows, resume where they stopped and can be extended."""

import gc
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from lorascope.analysis import summarize
from lorascope.analysis.study_data import load_study
from lorascope.data.row_order import step_rows
from lorascope.errors import Interrupted
from lorascope.measure.memory import MemoryMeter
from lorascope.measure.peak_memory import SampledPeak
from lorascope.modeling.adapters.initialisation import kept_factors
from lorascope.modeling.adapters.lora import MultiLoraLinear
from lorascope.records import SoloRun
from lorascope.run.prepare import prepare_study
from lorascope.search.solo_runs import solo_order
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from support.studies import Watcher, execute, read_study, study_of

PROGRAM = 10**9
"""Memory of everything but initial factors, in a test that counts these alone."""
HIDDEN, FIRST_LAYER = 24, 3
"""Width of the tiny model, and its layers whose input needs no gradient: query, key and value behind the embedding."""


@pytest.fixture
def spec(model_folders: Mapping[str, str], rows_file: str) -> StudySpec:
    return study_of(model_folders["llama"], rows_file, cost="quick")


def runs_of(folder: Path) -> list[SoloRun]:
    with StudyStore.open(folder / "study.db") as store:
        return store.read(SoloRun)


def test_solo_runs_alternate_the_order_of_ranks() -> None:
    arms = [("", rank) for rank in (128, 8, 256)]
    assert [(rank, repeat) for (_, rank), repeat in solo_order(arms, 3)] == [
        (8, 0), (128, 0), (256, 0), (256, 1), (128, 1), (8, 1), (8, 2), (128, 2), (256, 2),
    ]  # fmt: skip
    order = solo_order(arms, 4)
    places = {rank: [place for place, ((_, other), _) in enumerate(order) if other == rank] for rank in (8, 128, 256)}
    assert len({sum(found) for found in places.values()}) == 1


def test_solo_runs_share_typical_rows_and_the_last_adds_the_heaviest(spec: StudySpec, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    execute(spec, folder)
    runs = runs_of(folder)
    assert [(run.rank, run.repeat) for run in runs] == [(2, 0), (4, 0), (4, 1), (2, 1)]
    train = prepare_study(spec, None, Watcher()).splits.train
    tokens = [sum(train[row].n_tokens for row in step_rows(spec, len(train), seed=0, step=step)) for step in range(6)]
    mean = 4 * sum(row.n_tokens for row in train) / len(train)
    typical = min(tokens, key=lambda count: abs(count - mean))
    for run in runs:
        last = run.repeat == 1
        assert run.step_tokens == (max(tokens) if last else typical, typical)
        assert run.warmup_steps == 1
        assert min(run.step_seconds) > 0
        assert run.heaviest_tokens == (max(tokens) if last else None)
        counted = (run.product_flops, run.product_bytes)
        looked_at = (run.activation_bytes, run.evaluation_peak_bytes)
        known, unknown = (looked_at, counted) if last else (counted, looked_at)
        assert all(value is not None and value > 0 for value in known)
        assert unknown == (None, None)
        peaks = (run.forward_peak_bytes, run.backward_peak_bytes, run.optimizer_peak_bytes)
        assert min(peaks) > 0.9 * run.base_bytes
    # six operations a parameter and slot, but for the gradient that the first layers need not hand on
    two, four = runs[:2]
    parameters = {part.rank: part.trainable_parameters or 0 for part in summarize(folder).ranks}
    for_a_slot = 6 * (parameters[4] - parameters[2]) - 2 * (4 - 2) * HIDDEN * FIRST_LAYER
    slots, rest = divmod((four.product_flops or 0) - (two.product_flops or 0), for_a_slot)
    assert rest == 0
    assert slots % 32 == 0
    assert 0 < slots <= typical + 31
    assert (runs[2].activation_bytes or 0) > (runs[3].activation_bytes or 0)


def test_memory_alone_counts_the_rank_s_own_initial_factors_and_no_others(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PiSSA's factors stay in memory from a rank's first repeat on, those of all ranks beside each other."""
    monkeypatch.setattr(MemoryMeter, "read", lambda _: PROGRAM + live_factor_bytes())
    monkeypatch.setattr("lorascope.measure.memory.peak_counter", lambda _, read: SampledPeak(read))
    execute(spec.model_copy(update={"init_lora_weights": "pissa", "lora_dropout": 0.0}), tmp_path / "study")
    parameters = {part.rank: part.trainable_parameters or 0 for part in summarize(tmp_path / "study").ranks}
    for run in runs_of(tmp_path / "study"):
        alone = PROGRAM + 4 * parameters[run.rank]
        assert (run.base_bytes, run.after_bytes) == (PROGRAM, PROGRAM)
        assert (run.forward_peak_bytes, run.backward_peak_bytes, run.held_bytes) == (alone, alone, alone)


def live_factor_bytes() -> int:
    layers = [one for one in gc.get_objects() if type(one) is MultiLoraLinear]
    return sum(kept_factors(layers).values())


def test_solo_runs_change_no_loss_and_resume_between_runs(spec: StudySpec, tmp_path: Path) -> None:
    execute(spec.model_copy(update={"cost": "off"}), tmp_path / "off")
    with pytest.raises(Interrupted):
        _stopped_at("rank 4 costs alone, turn 2", spec, tmp_path / "study")
    begun = runs_of(tmp_path / "study")
    assert [(run.rank, run.repeat) for run in begun] == [(2, 0), (4, 0)]
    execute(spec, tmp_path / "study")
    assert runs_of(tmp_path / "study")[:2] == begun
    assert len(runs_of(tmp_path / "study")) == 4
    assert read_study(tmp_path / "study") == read_study(tmp_path / "off")
    assert load_study(tmp_path / "off").costs == {}
    assert summarize(tmp_path / "off").ranks[0].cost is None


def _stopped_at(phase: str, spec: StudySpec, folder: Path) -> None:
    class Stopping(Watcher):
        def phase(self, text: str) -> None:
            if phase in text:
                signal.raise_signal(signal.SIGINT)

    from lorascope.run.study import run_study

    run_study(spec, folder, trackers=[Stopping()], command="lorascope run")


def test_solo_runs_of_a_finished_study_extend_without_training(spec: StudySpec, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    execute(spec, folder)
    before, quick = read_study(folder), runs_of(folder)
    watcher = execute(spec.model_copy(update={"cost": "full"}), folder)
    assert watcher.steps == []
    assert read_study(folder) == before
    runs = runs_of(folder)
    assert runs[:4] == quick
    assert [(run.rank, run.repeat, len(run.step_seconds)) for run in runs[4:]] == [
        (2, 2, 6), (4, 2, 6), (4, 3, 6), (2, 3, 6),
    ]  # fmt: skip
    cost = summarize(folder).ranks[0].cost
    assert cost is not None
    assert (cost.turns, cost.measured_steps) == (4, 1 + 1 + 5 + 5)
    assert execute(spec, folder).notes == ["this study is complete; nothing was trained"]
