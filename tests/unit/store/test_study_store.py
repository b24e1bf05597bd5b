"""The contract of the store: records round-trip, and files that are not stores are refused."""

import math
import sqlite3
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorascope.analysis import load_study
from lorascope.errors import InputError
from lorascope.record_registry import RECORD_TYPES
from lorascope.records import (
    BASE_MODEL,
    AdapterRecord,
    Environment,
    EvalRecord,
    ForgettingRecord,
    GpuSample,
    MachineRates,
    OutcomeState,
    ResolvedStudy,
    SoloRun,
    SpectrumRecord,
    StepRecord,
    SystemSample,
    TokenCounts,
    TrialOutcome,
    TrialRecord,
    TruncationRecord,
)
from lorascope.spec.load import dump_spec
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore, verify_store
from lorascope.store import connection as connect
from lorascope.store.codec import codec_of
from lorascope.store.columns import StepColumns
from lorascope.store.tables import CHECKSUM, SCHEMA, SCHEMA_VERSION, table_of
from support.messages import verbatim

INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_nan=True, allow_infinity=True)


def _of(record: type) -> st.SearchStrategy:
    narrow = {name for name, hint in get_type_hints(record, include_extras=True).items() if hint == TokenCounts}
    return st.builds(record, **{name: st.lists(INT32).map(tuple) for name in narrow})


@pytest.fixture(autouse=True, scope="module")
def _field_values() -> Iterator[None]:
    st.register_type_strategy(int, INT64)
    st.register_type_strategy(float, FLOATS)
    yield
    st.register_type_strategy(int, st.integers())
    st.register_type_strategy(float, st.floats())


def bits(value: object) -> object:
    """Make floats comparable bit for bit, NaN and the sign of zero too."""
    if isinstance(value, float):
        return struct.pack("<d", value)
    if isinstance(value, tuple | list):
        return [bits(item) for item in value]
    if is_dataclass(value):
        return [(field.name, bits(getattr(value, field.name))) for field in fields(value)]
    return value


def step(trial_id: str = "r8", number: int = 1, nats: float = 1.5) -> StepRecord:
    return StepRecord(
        trial_id=trial_id, step=number, nats=nats, target_tokens=3, tokens=5, learning_rate=1e-4, grad_norm=0.5,
        seconds=0.25, warmup=False, group=0,
    )  # fmt: skip


def evaluation(trial_id: str = "r8", number: int = 1) -> EvalRecord:
    return EvalRecord(
        trial_id=trial_id, step=number, example_nats=(1.0, 2.0), example_target_tokens=(3, 4), seconds=0.5
    )


RESOLVED = ResolvedStudy(
    model="m", dataset="d", device="cpu", dtype="float32", dtype_reason=verbatim("faster here"), packing=True,
    packing_reason=verbatim("logits agree"), kernels=False,
    kernels_reason=verbatim("no compiler"), eval_tokens=None,
    train_examples=1, eval_examples=2, train_tokens=3, train_target_tokens=4,
    eval_target_tokens=5, total_steps=6, base_parameters=7, target_modules=("a.q_proj", "b.q_proj"), data_hash="h",
    model_hash="g", data_notes=(verbatim("1 row was cut"),),
)  # fmt: skip
ENVIRONMENT = Environment(
    started="2026-01-02T03:04:05+00:00", lorascope_version="0", commit=None, python="3", packages={"torch": "2"},
    os="Linux", cpu="c", cpu_cores=2, memory_bytes=9, device="cpu", device_name="c", threads=2, seeds=(0, 1),
    command="lorascope run",
)  # fmt: skip
TRIAL = TrialRecord(trial_id="r8", rank=8, lora_alpha=32.0, scale=4.0, learning_rate=1e-4, seed=0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StudyStore]:
    with StudyStore.create(tmp_path / "study.db") as opened:
        yield opened


@pytest.fixture(scope="module")
def any_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudyStore]:
    with StudyStore.create(tmp_path_factory.mktemp("any") / "study.db") as opened:
        yield opened


@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("kind", RECORD_TYPES, ids=lambda kind: RECORD_TYPES[kind].table)
@given(data=st.data())
def test_every_record_type_round_trips_bit_for_bit(any_store: StudyStore, kind: type[Any], data: st.DataObject) -> None:
    written = data.draw(_of(kind))
    any_store.put(written)
    key = {field: getattr(written, field) for field in RECORD_TYPES[kind].key or ()}
    *_, newest = any_store.read(kind, **key)
    assert bits(newest) == bits(written)


@pytest.mark.parametrize("kind", RECORD_TYPES, ids=lambda kind: RECORD_TYPES[kind].table)
def test_every_field_is_a_column_that_is_null_only_where_the_field_is_none(store: StudyStore, kind: type) -> None:
    rows = store._connection.execute(f"PRAGMA table_info({table_of(kind).name})").fetchall()
    required = {name: required for _, name, _, required, *_ in rows if name not in ("number", "only")}
    assert required.pop(CHECKSUM)
    assert required == {name: type(None) not in get_args(hint) for name, hint in get_type_hints(kind).items()}


def test_new_record_type_needs_only_its_declaration(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from lorascope.record_registry import record

@record("wishes", key=("name",), ordered=True)
class Wish:
    name: str
    nats: float | None
    tokens: tuple[int, ...]

from lorascope.store import StudyStore
wishes = [Wish(name="b", nats=None, tokens=(1, 2)), Wish(name="a", nats=float("inf"), tokens=())]
with StudyStore.create(Path(sys.argv[1])) as store:
    store.put_all(wishes)
with StudyStore.open(Path(sys.argv[1])) as store:
    assert store.read(Wish) == wishes
"""
    path = tmp_path / "study.db"
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)
    with pytest.raises(InputError, match="another version"):
        StudyStore.open(path)


def test_a_field_that_no_codec_keeps_is_refused() -> None:
    with pytest.raises(TypeError, match="no codec for set"):
        codec_of(set[int])


def test_a_written_study_is_read_back_after_closing(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    adapter = AdapterRecord(
        rank=8, trainable_parameters=1, parameter_bytes=2, gradient_bytes=3, optimizer_bytes=4,
        saved_rank=8, saved_bytes=2,
    )  # fmt: skip
    outcome = TrialOutcome(trial_id="r8", state="finished", steps=1, message=None)
    sample = SystemSample(
        seconds=0.0, rss_bytes=1, cpu_percent=2.0, device_allocated_bytes=None, memory_traffic_bytes=None
    )
    run = SoloRun(
        rank=8,
        repeat=1,
        step_seconds=(0.3, 0.2),
        warmup_steps=1,
        step_tokens=(9, 9),
        cpu_seconds=0.4,
        base_bytes=5,
        forward_peak_bytes=2**40,
        backward_peak_bytes=7,
        optimizer_peak_bytes=6,
        evaluation_peak_bytes=None,
        held_bytes=6,
        after_bytes=5,
        reserved_peak_bytes=None,
        memory_method="kernel",
        samples_bytes=(5, 2**40),
        warmup_samples=1,
        heaviest_tokens=None,
        activation_bytes=None,
        product_flops=None,
        product_bytes=None,
    )
    rates = MachineRates(dtype="bfloat16", flops_per_second=2e11, bytes_per_second=1e10)
    gpu = GpuSample(
        seconds=0.5,
        rank=None,
        uuid="GPU-1",
        name="a GPU",
        memory_used_bytes=1,
        memory_total_bytes=2,
        utilization_percent=3,
        memory_utilization_percent=None,
        power_watts=70.5,
        sm_clock_mhz=1,
        memory_clock_mhz=2,
        temperature_celsius=40,
        throttle_reasons=0,
    )
    with StudyStore.create(path) as store:
        store.put_all([TRIAL, replace(TRIAL, trial_id="r128", rank=128)])
        store.put(adapter)
        store.put_all([step(number=2), step(number=1)])
        store.put(evaluation())
        store.put_all([sample, sample])
        for again in (replace(run, cpu_seconds=9.0), run, replace(run, repeat=0)):
            store.put(again)
        store.put(rates)
        store.put_all([gpu, replace(gpu, power_watts=None)])
        store.put(outcome)
    with StudyStore.open(path) as store:
        assert [trial.trial_id for trial in store.read(TrialRecord)] == ["r8", "r128"]
        assert store.read(AdapterRecord) == [adapter]
        assert store.read(StepRecord, trial_id="r8") == [step(number=1), step(number=2)]
        assert store.read(StepRecord, trial_id="r128") == []
        assert store.read(EvalRecord, trial_id="r8") == [evaluation()]
        assert store.read(SystemSample) == [sample, sample]
        assert store.read(SoloRun) == [run, replace(run, repeat=0)]
        assert store.read_one(MachineRates) == rates
        assert store.read(GpuSample) == [gpu, replace(gpu, power_watts=None)]
        assert store.outcomes() == {"r8": outcome}
        assert store.read_one(ResolvedStudy) is None
        assert store.read(Environment) == []
    assert [file.name for file in tmp_path.iterdir()] == ["study.db"]


def test_single_records_are_replaced_and_environments_kept(store: StudyStore) -> None:
    store.put(RESOLVED)
    store.put(replace(RESOLVED, model="another"))
    assert store.read_one(ResolvedStudy) == replace(RESOLVED, model="another")
    store.put(ENVIRONMENT)
    store.put(replace(ENVIRONMENT, started="later", commit="abc-dirty"))
    assert store.read(Environment) == [ENVIRONMENT, replace(ENVIRONMENT, started="later", commit="abc-dirty")]


def test_the_same_step_twice_replaces_it(store: StudyStore) -> None:
    store.put_all([step(nats=1.0), step(number=2)])
    store.put(step(nats=9.0))
    assert [record.nats for record in store.read(StepRecord, trial_id="r8")] == [9.0, 1.5]


def test_truncation_deletes_only_beyond_the_step_and_only_these_trials(store: StudyStore) -> None:
    for trial in ("r8", "r16", "r32"):
        store.put_all([step(trial, number) for number in (1, 2, 3)])
        store.put_all([evaluation(trial, number) for number in (0, 2, 3)])
    store.truncate_after(["r8", "r16"], 2)
    assert [record.step for record in store.read(StepRecord, trial_id="r8")] == [1, 2]
    assert [record.step for record in store.read(EvalRecord, trial_id="r16")] == [0, 2]
    assert [record.step for record in store.read(StepRecord, trial_id="r32")] == [1, 2, 3]


def test_post_training_records_are_ordered_and_replaced_by_key(store: StudyStore) -> None:
    spectra = [SpectrumRecord(trial_id="r8", layer=layer, singular_values=(2.0, 1.0)) for layer in ("b", "a", "c")]
    cut = TruncationRecord(trial_id="r8", rank=4, example_nats=(1.0, 2.0), example_target_tokens=(3, 4), seconds=0.5)
    base = ForgettingRecord(
        trial_id=BASE_MODEL, text="t", text_hash="h", window_nats=(1.0,), window_target_tokens=(2,), seconds=0.1
    )
    store.put_all(spectra)
    store.put_all([replace(record, trial_id="r2") for record in spectra])
    for rank in (4, 16, 2, 4):
        store.put(replace(cut, rank=rank))
    store.put(replace(base, text="an earlier one"))
    store.put(base)
    store.put(replace(base, trial_id="r8"))
    assert [(record.trial_id, record.layer) for record in store.read(SpectrumRecord)] == [
        (trial, layer) for trial in ("r8", "r2") for layer in ("b", "a", "c")
    ]
    assert [record.rank for record in store.read(TruncationRecord)] == [2, 4, 16]
    assert {record.trial_id: record for record in store.read(ForgettingRecord)} == {
        "": base,
        "r8": replace(base, trial_id="r8"),
    }


def test_a_write_is_whole_or_nothing(store: StudyStore) -> None:
    store.put(step())
    broken = replace(step(number=3), trial_id=None)
    with pytest.raises(sqlite3.IntegrityError):
        store.put_all([step(number=2), broken])
    assert len(store.read(StepRecord, trial_id="r8")) == 1
    store.put(step(number=2))
    assert len(store.read(StepRecord, trial_id="r8")) == 2


def test_a_reader_sees_what_a_live_writer_commits(store: StudyStore, tmp_path: Path) -> None:
    with StudyStore.open(tmp_path / "study.db") as reader:
        assert reader.read(StepRecord, trial_id="r8") == []
        store.put(step())
        assert len(reader.read(StepRecord, trial_id="r8")) == 1


def test_a_reader_cannot_write(store: StudyStore, tmp_path: Path) -> None:
    with StudyStore.open(tmp_path / "study.db") as reader, pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.put(step())


def test_threads_share_one_store(store: StudyStore) -> None:
    def write(trial: str) -> None:
        for number in range(20):
            store.put(step(trial, number))

    threads = [threading.Thread(target=write, args=(trial,)) for trial in ("r8", "r16")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.read(StepRecord, trial_id="r8")) == len(store.read(StepRecord, trial_id="r16")) == 20


def test_the_writer_uses_a_write_ahead_log(store: StudyStore, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "study.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_what_a_killed_writer_committed_is_read(tmp_path: Path) -> None:
    killed = StudyStore.create(tmp_path / "study.db")
    killed.put(step())
    for name in ("study.db", "study.db-wal"):
        (tmp_path / f"copy-{name}").write_bytes((tmp_path / name).read_bytes())
    killed.close()
    (tmp_path / "copy-study.db").rename(tmp_path / "after.db")
    (tmp_path / "copy-study.db-wal").rename(tmp_path / "after.db-wal")
    with StudyStore.open(tmp_path / "after.db") as store:
        assert store.read(StepRecord, trial_id="r8") == [step()]


def test_a_missing_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no study store at .*study\.db"):
        StudyStore.open(tmp_path / "study.db")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="no folder"):
        StudyStore.create(tmp_path / "absent" / "study.db")


@pytest.mark.parametrize("content", [b"", b"not a database, but long enough to be one" * 40])
def test_another_file_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "study.db"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a study store"):
        StudyStore.open(path)
    assert path.read_bytes() == content


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    for opener in (StudyStore.open, StudyStore.create):
        with pytest.raises(InputError, match="not a study store"):
            opener(path)


@pytest.mark.parametrize("opener", [StudyStore.open, StudyStore.create])
@pytest.mark.parametrize("number", [0, 1, 8, SCHEMA_VERSION + 1])
@pytest.mark.parametrize("writer", ["0.0.3", "7.1", None])
def test_a_store_of_another_version_is_refused_and_left_alone(
    tmp_path: Path, opener: Callable[[Path], StudyStore], number: int, writer: str | None
) -> None:
    path = tmp_path / "study.db"
    with StudyStore.create(path) as store:
        if writer:
            store.put(replace(ENVIRONMENT, lorascope_version=writer))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {number}")
    before = path.read_bytes()
    with pytest.raises(InputError) as refused:
        opener(path)
    said = str(refused.value)
    assert "was written by another version of lorascope" in said
    assert (f"({writer}, this is" in said, f"read it with lorascope {writer}" in said) == (bool(writer), bool(writer))
    assert path.read_bytes() == before


def test_store_whose_creation_failed_is_created_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "study.db"
    with monkeypatch.context() as patch:
        patch.setattr(connect, "SCHEMA", (*SCHEMA, "CREATE TABLE steps (x)"))
        with pytest.raises(InputError, match="is damaged: table steps already exists"):
            StudyStore.create(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
        assert connection.execute("PRAGMA user_version").fetchone() == (0,)
    with StudyStore.create(path) as store:
        store.put(step())
        assert store.read(StepRecord) == [step()]


def test_a_number_that_changed_on_disk_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    with StudyStore.create(path) as store:
        store.put(step(nats=1.5))
        store.put(evaluation())
    connection = sqlite3.connect(path)
    connection.execute("UPDATE steps SET nats = 1.25")
    connection.commit()
    connection.close()
    with StudyStore.open(path) as store:
        assert store.read(EvalRecord, trial_id="r8") == [evaluation()]
        with pytest.raises(InputError, match=r"study\.db is damaged: a row of the table steps does not match"):
            store.read(StepRecord, trial_id="r8")
        with pytest.raises(InputError, match="does not match"):
            store.step_columns("r8")


def test_a_file_whose_structure_is_damaged_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    with StudyStore.create(path) as store:
        store.put_all([step(number=number) for number in range(1, 400)])
    path.write_bytes(path.read_bytes()[:-8192])
    with pytest.raises(InputError, match="is damaged"):
        StudyStore.create(path)
    with pytest.raises(InputError, match="is damaged"):
        verify_store(path)


def test_reading_a_study_verifies_the_whole_file(tmp_path: Path) -> None:
    """Also at pages that no record is read from."""
    path = tmp_path / "study.db"
    (tmp_path / "study.yaml").write_text(dump_spec(StudySpec()), encoding="utf-8")
    with StudyStore.create(path) as store:
        store.put_all([step(number=number) for number in range(1, 400)])
    assert load_study(tmp_path).trials == ()
    path.write_bytes(path.read_bytes()[:-8192])
    with pytest.raises(InputError, match="is damaged"):
        load_study(tmp_path)


def test_store_works_without_shared_memory_and_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's own stand-in for a network share: locks are files, and there is no shared memory."""
    original = connect._open_checked
    monkeypatch.setattr(connect, "_open_checked", lambda address: original(f"{address}&vfs=unix-dotfile"))
    with StudyStore.create(tmp_path / "study.db") as store:
        store.put(step())
        assert store._connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        with StudyStore.open(tmp_path / "study.db") as reader:
            assert reader.read(StepRecord, trial_id="r8") == [step()]


def test_steps_come_back_as_columns_with_what_sqlite_cannot_hold(tmp_path: Path) -> None:
    values = (2.5, math.nan, -0.0, math.inf, 1e-300)
    with StudyStore.create(tmp_path / "study.db") as store:
        for name in ("b", "a"):
            records = [step(name, number, nats) for number, nats in enumerate(values, start=1)]
            store.put_all(records[::-1])
        columns = store.step_columns("a")
        assert len(store.step_columns("nobody")) == 0
        same = StepColumns.of_records(store.read(StepRecord, trial_id="a"))
    assert columns.step.tolist() == [1, 2, 3, 4, 5]
    assert columns.nats[[0, 2, 4]].tolist() == [2.5, 0.0, 1e-300]
    assert not np.isfinite(columns.nats[[1, 3]]).any()
    assert (columns.target_tokens.tolist(), columns.tokens.tolist()) == ([3] * 5, [5] * 5)
    assert columns.finite.step.tolist() == same.finite.step.tolist() == [1, 3, 5]
    assert columns.until(2).step.tolist() == [1, 2]


def outcome(state: OutcomeState) -> TrialOutcome:
    return TrialOutcome(trial_id="r8", state=state, steps=5_001, message=None)


def test_steps_of_a_finished_long_trial_are_one_block_with_a_checksum(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    numbers = [math.nan, -0.0, *(number / 7 for number in range(3, 5_002))]
    written = [step(number=number, nats=nats) for number, nats in enumerate(numbers, start=1)]

    def damage(statement: str) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(statement)

    with StudyStore.create(path) as store:
        store.put_all(written)
        store.put(outcome("running"))
        assert len(store.step_columns("r8")) == 5_001
        store.put(outcome("finished"))
    damage("UPDATE steps SET nats = 3")
    with StudyStore.create(path) as store:
        read = store.step_columns("r8")
        for name in (
            "step",
            "nats",
            "target_tokens",
            "tokens",
            "learning_rate",
            "grad_norm",
            "seconds",
            "warmup",
            "group",
        ):
            expected = getattr(StepColumns.of_records(written), name)
            assert np.array_equal(getattr(read, name)[1:], expected[1:]), name
        assert not np.isfinite(read.nats[0])
        # a step more, and the block is gone until the trial ends again
        store.put(step(number=5_002, nats=0.5))
        assert len(store.step_columns("r8")) == 5_002
        store.put(outcome("stopped"))
        assert store.step_columns("r8").nats[-1] == 0.5
        store.put_all(written)
        store.put(outcome("oom"))
        # a resume from an earlier step
        store.truncate_after(["r8"], 4_000)
        assert len(store.step_columns("r8")) == 4_000
        store.put_all(written)
        store.put(outcome("oom"))
    damage("UPDATE step_blocks SET columns = substr(columns, 1, length(columns) / 5001 * 5000)")
    with (
        StudyStore.open(path) as store,
        pytest.raises(InputError, match="a row of the table step_blocks does not match"),
    ):
        store.step_columns("r8")


def test_columns_of_a_trial_too_long_to_verify_are_those_of_its_records(tmp_path: Path) -> None:
    with StudyStore.create(tmp_path / "study.db") as store:
        store.put_all([step(number=number, nats=number / 7) for number in range(1, 5_002)])
        long, verified = store.step_columns("r8"), StepColumns.of_records(store.read(StepRecord, trial_id="r8"))
    for name in ("step", "nats", "target_tokens", "tokens", "seconds", "warmup", "group"):
        assert np.array_equal(getattr(long, name), getattr(verified, name)), name
