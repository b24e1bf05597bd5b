"""The contract of the store: what is written comes back equal, and what is not a store is refused."""

import math
import sqlite3
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorascope import records
from lorascope.analysis import load_study
from lorascope.errors import InputError
from lorascope.spec.load import dump_spec
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore, migrations, tables, verify_store
from lorascope.store import connection as connect
from lorascope.store.columns import StepColumns

INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_nan=True, allow_infinity=True)


def _of(record: type) -> st.SearchStrategy:
    narrow = {"example_target_tokens", "window_target_tokens"} & {field.name for field in fields(record)}
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
    if hasattr(value, "__dataclass_fields__"):
        return [(field.name, bits(getattr(value, field.name))) for field in fields(value)]
    return value


def step(trial_id: str = "r8", number: int = 1, nats: float = 1.5) -> records.StepRecord:
    return records.StepRecord(
        trial_id=trial_id, step=number, nats=nats, target_tokens=3, tokens=5, learning_rate=1e-4, grad_norm=0.5,
        seconds=0.25, warmup=False,
    )  # fmt: skip


def evaluation(trial_id: str = "r8", number: int = 1) -> records.EvalRecord:
    return records.EvalRecord(
        trial_id=trial_id, step=number, example_nats=(1.0, 2.0), example_target_tokens=(3, 4), seconds=0.5
    )


RESOLVED = records.ResolvedStudy(
    model="m", dataset="d", device="cpu", dtype="float32", dtype_reason="faster here", packing=True,
    packing_reason="logits agree", kernels=False,
    kernels_reason="no compiler", eval_tokens=None,
    train_examples=1, eval_examples=2, train_tokens=3, train_target_tokens=4,
    eval_target_tokens=5, total_steps=6, base_parameters=7, target_modules=("a.q_proj", "b.q_proj"), data_hash="h",
    model_hash="g", data_notes=("1 row was cut",),
)  # fmt: skip
ENVIRONMENT = records.Environment(
    started="2026-01-02T03:04:05+00:00", lorascope_version="0", commit=None, python="3", packages={"torch": "2"},
    os="Linux", cpu="c", cpu_cores=2, memory_bytes=9, device="cpu", device_name="c", threads=2, seeds=(0, 1),
    command="lorascope run",
)  # fmt: skip
TRIAL = records.TrialRecord(trial_id="r8", rank=8, lora_alpha=32.0, scale=4.0, learning_rate=1e-4, seed=0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StudyStore]:
    with StudyStore.create(tmp_path / "study.db") as opened:
        yield opened


@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize(
    "table",
    [tables.RESOLVED, tables.ENVIRONMENTS, tables.TRIALS, tables.OUTCOMES, tables.ADAPTERS, tables.COSTS, tables.STEPS,
     tables.EVALUATIONS, tables.SAMPLES, tables.SPECTRA, tables.TRUNCATIONS, tables.FORGETTING,
     tables.SOLO_RUNS, tables.MACHINE_RATES, tables.GPU_SAMPLES],
    ids=lambda table: table.name,
)  # fmt: skip
@given(data=st.data())
def test_every_record_comes_back_bit_for_bit(table: tables.RecordTable, data: st.DataObject) -> None:
    record = data.draw(_of(table.make))
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrations.migrate(connection)
    connection.execute(table.insert_sql, table.encode(record))
    (row,) = connection.execute(table.select_sql).fetchall()
    connection.close()
    assert bits(table.decode(row)) == bits(record)


def test_a_written_study_is_read_back_after_closing(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    cost = records.CostRecord(
        rank=8, step_seconds=(0.3, 0.2), warmup_steps=1, step_tokens=(9, 8), peak_memory_bytes=2**40,
        base_memory_bytes=7, memory_samples_bytes=(2**40, 5),
    )  # fmt: skip
    adapter = records.AdapterRecord(
        rank=8, trainable_parameters=1, parameter_bytes=2, gradient_bytes=3, optimizer_bytes=4
    )
    outcome = records.TrialOutcome(trial_id="r8", state="finished", steps=1, message="")
    sample = records.SystemSample(
        seconds=0.0, rss_bytes=1, cpu_percent=2.0, device_allocated_bytes=None, memory_traffic_bytes=None
    )
    turn = records.SoloRun(
        rank=8,
        turn=1,
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
    rates = records.MachineRates(dtype="bfloat16", flops_per_second=2e11, bytes_per_second=1e10)
    gpu = records.GpuSample(
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
        store.put_trials([TRIAL, replace(TRIAL, trial_id="r128", rank=128)])
        store.put_cost(cost)
        store.put_adapter(adapter)
        store.append_steps([step(number=2), step(number=1)])
        store.append_evaluations([evaluation()])
        store.append_samples([sample, sample])
        for again in (replace(turn, cpu_seconds=9.0), turn, replace(turn, turn=0)):
            store.put_solo_run(again)
        store.put_machine_rates(rates)
        store.append_gpu_samples([gpu, replace(gpu, power_watts=None)])
        store.put_outcome(outcome)
    with StudyStore.open(path) as store:
        assert [trial.trial_id for trial in store.trials()] == ["r8", "r128"]
        assert store.costs() == [cost]
        assert store.adapters() == [adapter]
        assert store.steps("r8") == [step(number=1), step(number=2)]
        assert store.steps("r128") == []
        assert store.evaluations("r8") == [evaluation()]
        assert store.samples() == [sample, sample]
        assert store.solo_runs() == [turn, replace(turn, turn=0)]
        assert store.machine_rates() == rates
        assert store.gpu_samples() == [gpu, replace(gpu, power_watts=None)]
        assert store.outcomes() == {"r8": outcome}
        assert store.resolved() is None
        assert store.environments() == []
    assert [file.name for file in tmp_path.iterdir()] == ["study.db"]


def test_what_has_one_value_is_replaced_and_environments_are_kept(store: StudyStore) -> None:
    store.put_resolved(RESOLVED)
    store.put_resolved(replace(RESOLVED, model="another"))
    assert store.resolved() == replace(RESOLVED, model="another")
    store.put_environment(ENVIRONMENT)
    store.put_environment(replace(ENVIRONMENT, started="later", commit="abc-dirty"))
    assert store.environments() == [ENVIRONMENT, replace(ENVIRONMENT, started="later", commit="abc-dirty")]


def test_the_same_step_twice_replaces_it(store: StudyStore) -> None:
    store.append_steps([step(nats=1.0), step(number=2)])
    store.append_steps([step(nats=9.0)])
    assert [record.nats for record in store.steps("r8")] == [9.0, 1.5]


def test_truncation_deletes_only_beyond_the_step_and_only_these_trials(store: StudyStore) -> None:
    for trial in ("r8", "r16", "r32"):
        store.append_steps([step(trial, number) for number in (1, 2, 3)])
        store.append_evaluations([evaluation(trial, number) for number in (0, 2, 3)])
    store.truncate_after(["r8", "r16"], 2)
    assert [record.step for record in store.steps("r8")] == [1, 2]
    assert [record.step for record in store.evaluations("r16")] == [0, 2]
    assert [record.step for record in store.steps("r32")] == [1, 2, 3]


def test_what_was_examined_is_read_back_in_order_and_replaced_by_key(store: StudyStore) -> None:
    spectra = [
        records.SpectrumRecord(trial_id="r8", layer=layer, singular_values=(2.0, 1.0)) for layer in ("b", "a", "c")
    ]
    cut = records.TruncationRecord(
        trial_id="r8", rank=4, example_nats=(1.0, 2.0), example_target_tokens=(3, 4), seconds=0.5
    )
    base = records.ForgettingRecord(
        trial_id=records.BASE_MODEL, text="t", text_hash="h", window_nats=(1.0,), window_target_tokens=(2,), seconds=0.1
    )
    store.append_spectra(spectra)
    store.append_spectra([replace(record, trial_id="r2") for record in spectra])
    for rank in (4, 16, 2, 4):
        store.append_truncation(replace(cut, rank=rank))
    store.append_forgetting(replace(base, text="an earlier one"))
    store.append_forgetting(base)
    store.append_forgetting(replace(base, trial_id="r8"))
    assert [(record.trial_id, record.layer) for record in store.spectra()] == [
        (trial, layer) for trial in ("r8", "r2") for layer in ("b", "a", "c")
    ]
    assert [record.rank for record in store.truncations()] == [2, 4, 16]
    assert store.forgetting() == {"": base, "r8": replace(base, trial_id="r8")}


def test_a_write_is_whole_or_nothing(store: StudyStore) -> None:
    store.append_steps([step()])
    broken = replace(step(number=3), trial_id=None)  # type: ignore[arg-type]
    with pytest.raises(sqlite3.IntegrityError):
        store.append_steps([step(number=2), broken])
    assert len(store.steps("r8")) == 1
    store.append_steps([step(number=2)])
    assert len(store.steps("r8")) == 2


def test_a_reader_sees_what_a_live_writer_commits(store: StudyStore, tmp_path: Path) -> None:
    with StudyStore.open(tmp_path / "study.db") as reader:
        assert reader.steps("r8") == []
        store.append_steps([step()])
        assert len(reader.steps("r8")) == 1


def test_a_reader_cannot_write(store: StudyStore, tmp_path: Path) -> None:
    with StudyStore.open(tmp_path / "study.db") as reader, pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.append_steps([step()])


def test_threads_share_one_store(store: StudyStore) -> None:
    def write(trial: str) -> None:
        for number in range(20):
            store.append_steps([step(trial, number)])

    threads = [threading.Thread(target=write, args=(trial,)) for trial in ("r8", "r16")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.steps("r8")) == len(store.steps("r16")) == 20


def test_the_writer_uses_a_write_ahead_log(store: StudyStore, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "study.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_what_a_killed_writer_committed_is_read(tmp_path: Path) -> None:
    killed = StudyStore.create(tmp_path / "study.db")
    killed.append_steps([step()])
    for name in ("study.db", "study.db-wal"):
        (tmp_path / f"copy-{name}").write_bytes((tmp_path / name).read_bytes())
    killed.close()
    (tmp_path / "copy-study.db").rename(tmp_path / "after.db")
    (tmp_path / "copy-study.db-wal").rename(tmp_path / "after.db-wal")
    with StudyStore.open(tmp_path / "after.db") as store:
        assert store.steps("r8") == [step()]


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


def test_a_newer_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    StudyStore.create(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    for opener in (StudyStore.open, StudyStore.create):
        with pytest.raises(InputError, match="newer lorascope"):
            opener(path)


def test_a_newer_store_names_the_version_that_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    with StudyStore.create(path) as store:
        store.put_environment(replace(ENVIRONMENT, lorascope_version="7.1"))
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(InputError, match=r"upgrade lorascope to 7\.1 or later"):
        StudyStore.open(path)


def older_store(path: Path, level: int) -> None:
    """Write a store as the version after ``level`` migrations did: its own columns, a row in each table."""
    connection = sqlite3.connect(path)
    for statements in migrations.MIGRATIONS[:level]:
        for statement in statements:
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {migrations.APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {level}")
    present = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    for table, record in ((tables.RESOLVED, RESOLVED), (tables.TRIALS, TRIAL), (tables.STEPS, step()),
                          (tables.EVALUATIONS, evaluation()), (tables.ENVIRONMENTS, ENVIRONMENT)):  # fmt: skip
        assert table.name in present
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table.name})")]
        values = dict(zip(table.codecs, table.encode(record), strict=False))
        known = [column for column in columns if column in values]
        marks = ", ".join("?" for _ in known)
        names = ", ".join(f'"{column}"' for column in known)
        connection.execute(f"INSERT INTO {table.name} ({names}) VALUES ({marks})", [values[column] for column in known])
    connection.commit()
    connection.close()


@pytest.mark.parametrize("level", range(1, len(migrations.MIGRATIONS) + 1))
@pytest.mark.parametrize("opener", [StudyStore.open, StudyStore.create])
def test_a_store_of_every_version_is_read(tmp_path: Path, level: int, opener: Callable[[Path], StudyStore]) -> None:
    path = tmp_path / "study.db"
    older_store(path, level)
    before = path.read_bytes()
    with opener(path) as store:
        resolved = store.resolved()
        assert resolved is not None
        assert replace(resolved, kernels_reason="", eval_tokens=None) == replace(RESOLVED, kernels_reason="")
        assert (store.trials(), store.steps("r8"), store.evaluations("r8")) == ([TRIAL], [step()], [evaluation()])
        assert store.environments() == [ENVIRONMENT]
        assert (store.spectra(), store.truncations(), store.forgetting()) == ([], [], {})
    if opener == StudyStore.open:
        assert path.read_bytes() == before
    else:
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA user_version").fetchone() == (len(migrations.MIGRATIONS),)
        connection.close()


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "study.db"
    older_store(path, 1)
    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, ("CREATE TABLE steps (x)",)))
    monkeypatch.setattr(connect, "MIGRATIONS", migrations.MIGRATIONS)
    with pytest.raises(InputError, match="is damaged: table steps already exists"):
        StudyStore.create(path)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert connection.execute("SELECT nats FROM steps").fetchall() == [(1.5,)]
    connection.close()


def test_every_field_has_a_column_and_every_column_a_field() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrations.migrate(connection)
    for table in (
        getattr(tables, name) for name in dir(tables) if isinstance(getattr(tables, name), tables.RecordTable)
    ):
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table.name})")]
        named = [column for column in columns if column not in ("number", "only")]
        assert tables.CHECKSUM in named, f"a migration must give {table.name} its column {tables.CHECKSUM}"
        assert [column for column in named if column != tables.CHECKSUM] == list(table.codecs)
    connection.close()


def test_a_number_that_changed_on_disk_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    with StudyStore.create(path) as store:
        store.append_steps([step(nats=1.5)])
        store.append_evaluations([evaluation()])
    connection = sqlite3.connect(path)
    connection.execute("UPDATE steps SET nats = 1.25")
    connection.commit()
    connection.close()
    with StudyStore.open(path) as store:
        assert store.evaluations("r8") == [evaluation()]
        with pytest.raises(InputError, match=r"study\.db is damaged: a row of the table steps does not match"):
            store.steps("r8")
        with pytest.raises(InputError, match="does not match"):
            store.step_columns("r8")


def test_a_file_whose_structure_is_damaged_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    with StudyStore.create(path) as store:
        store.append_steps([step(number=number) for number in range(1, 400)])
    path.write_bytes(path.read_bytes()[:-8192])
    with pytest.raises(InputError, match="is damaged"):
        StudyStore.create(path)
    with pytest.raises(InputError, match="is damaged"):
        verify_store(path)


def test_reading_a_study_looks_at_the_whole_file(tmp_path: Path) -> None:
    """Also at pages that no record is read from."""
    path = tmp_path / "study.db"
    (tmp_path / "study.yaml").write_text(dump_spec(StudySpec()), encoding="utf-8")
    with StudyStore.create(path) as store:
        store.append_steps([step(number=number) for number in range(1, 400)])
    assert load_study(tmp_path).trials == ()
    path.write_bytes(path.read_bytes()[:-8192])
    with pytest.raises(InputError, match="is damaged"):
        load_study(tmp_path)


def test_where_nothing_can_be_mapped_into_memory_the_store_works_without_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's own stand-in for a network share: locks are files, and there is no shared memory."""
    original = connect._probed
    monkeypatch.setattr(connect, "_probed", lambda address: original(f"{address}&vfs=unix-dotfile"))
    with StudyStore.create(tmp_path / "study.db") as store:
        store.append_steps([step()])
        assert store._connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        with StudyStore.open(tmp_path / "study.db") as reader:
            assert reader.steps("r8") == [step()]


def test_steps_come_back_as_columns_with_what_sqlite_cannot_hold(tmp_path: Path) -> None:
    values = (2.5, math.nan, -0.0, math.inf, 1e-300)
    with StudyStore.create(tmp_path / "study.db") as store:
        for name in ("b", "a"):
            records = [step(name, number, nats) for number, nats in enumerate(values, start=1)]
            store.append_steps(records[::-1])
        columns = store.step_columns("a")
        assert len(store.step_columns("nobody")) == 0
        same = StepColumns.of_records(store.steps("a"))
    assert columns.step.tolist() == [1, 2, 3, 4, 5]
    assert columns.nats[[0, 2, 4]].tolist() == [2.5, 0.0, 1e-300]
    assert not np.isfinite(columns.nats[[1, 3]]).any()
    assert (columns.target_tokens.tolist(), columns.tokens.tolist()) == ([3] * 5, [5] * 5)
    assert columns.finite.step.tolist() == same.finite.step.tolist() == [1, 3, 5]
    assert columns.until(2).step.tolist() == [1, 2]


def outcome(state: records.OutcomeState) -> records.TrialOutcome:
    return records.TrialOutcome(trial_id="r8", state=state, steps=5_001, message="")


def test_the_steps_of_a_long_trial_that_ended_are_one_block_with_a_checksum(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    numbers = [math.nan, -0.0, *(number / 7 for number in range(3, 5_002))]
    written = [step(number=number, nats=nats) for number, nats in enumerate(numbers, start=1)]

    def damage(statement: str) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(statement)

    with StudyStore.create(path) as store:
        store.append_steps(written)
        store.put_outcome(outcome("running"))
        assert len(store.step_columns("r8")) == 5_001
        store.put_outcome(outcome("finished"))
    damage("UPDATE steps SET nats = 3")
    with StudyStore.create(path) as store:
        read = store.step_columns("r8")
        for name in ("step", "nats", "target_tokens", "tokens", "seconds", "warmup"):
            expected = getattr(StepColumns.of_records(written), name)
            assert np.array_equal(getattr(read, name)[1:], expected[1:]), name
        assert not np.isfinite(read.nats[0])
        # a step more, and the block is gone until the trial ends again
        store.append_steps([step(number=5_002, nats=0.5)])
        assert len(store.step_columns("r8")) == 5_002
        store.put_outcome(outcome("stopped"))
        assert store.step_columns("r8").nats[-1] == 0.5
        store.append_steps(written)
        store.put_outcome(outcome("oom"))
        # a resume from an earlier step
        store.truncate_after(["r8"], 4_000)
        assert len(store.step_columns("r8")) == 4_000
        store.append_steps(written)
        store.put_outcome(outcome("oom"))
    damage("UPDATE step_blocks SET data = substr(data, 1, 41 * 5000)")
    with StudyStore.open(path) as store, pytest.raises(InputError, match="the steps of r8 do not match"):
        store.step_columns("r8")


def test_columns_of_a_trial_too_long_to_verify_are_those_of_its_records(tmp_path: Path) -> None:
    with StudyStore.create(tmp_path / "study.db") as store:
        store.append_steps([step(number=number, nats=number / 7) for number in range(1, 5_002)])
        long, verified = store.step_columns("r8"), StepColumns.of_records(store.steps("r8"))
    for name in ("step", "nats", "target_tokens", "tokens", "seconds", "warmup"):
        assert np.array_equal(getattr(long, name), getattr(verified, name)), name
