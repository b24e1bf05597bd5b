"""The shape of the file, as numbered steps: version n is the first n steps applied.

A step that was released is never edited; a change of shape is a new step.
"""

import sqlite3

APPLICATION_ID = 0x4C6F5261
"""Marks a SQLite file as a study store ("LoRa")."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE facts (
            only INTEGER NOT NULL DEFAULT 1 UNIQUE CHECK (only = 1),
            model TEXT NOT NULL, dataset TEXT NOT NULL, device TEXT NOT NULL, dtype TEXT NOT NULL,
            dtype_reason TEXT NOT NULL, packing INTEGER NOT NULL, packing_reason TEXT NOT NULL,
            train_examples INTEGER NOT NULL, eval_examples INTEGER NOT NULL, train_tokens INTEGER NOT NULL,
            train_target_tokens INTEGER NOT NULL, eval_target_tokens INTEGER NOT NULL, total_steps INTEGER NOT NULL,
            base_parameters INTEGER NOT NULL, target_modules TEXT NOT NULL, data_hash TEXT NOT NULL,
            model_hash TEXT NOT NULL, data_notes TEXT NOT NULL)""",
        """CREATE TABLE environments (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            started TEXT NOT NULL, lorascope_version TEXT NOT NULL, "commit" TEXT, python TEXT NOT NULL,
            packages TEXT NOT NULL, os TEXT NOT NULL, cpu TEXT NOT NULL, cpu_cores INTEGER NOT NULL,
            memory_bytes INTEGER NOT NULL, device TEXT NOT NULL, device_name TEXT NOT NULL,
            threads INTEGER NOT NULL, seeds BLOB NOT NULL, command TEXT NOT NULL)""",
        """CREATE TABLE trials (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            trial_id TEXT NOT NULL UNIQUE, rank INTEGER NOT NULL, lora_alpha REAL NOT NULL, scale REAL NOT NULL,
            learning_rate REAL NOT NULL, seed INTEGER NOT NULL)""",
        """CREATE TABLE outcomes (
            trial_id TEXT PRIMARY KEY, state TEXT NOT NULL, steps INTEGER NOT NULL, message TEXT NOT NULL)""",
        """CREATE TABLE adapters (
            rank INTEGER PRIMARY KEY, trainable_parameters INTEGER NOT NULL, parameter_bytes INTEGER NOT NULL,
            gradient_bytes INTEGER NOT NULL, optimizer_bytes INTEGER NOT NULL)""",
        """CREATE TABLE costs (
            rank INTEGER PRIMARY KEY, step_seconds BLOB NOT NULL, warmup_steps INTEGER NOT NULL,
            step_tokens BLOB NOT NULL, peak_memory_bytes INTEGER NOT NULL, base_memory_bytes INTEGER NOT NULL,
            memory_samples_bytes BLOB NOT NULL)""",
        """CREATE TABLE steps (
            trial_id TEXT NOT NULL, step INTEGER NOT NULL, nats REAL NOT NULL, target_tokens INTEGER NOT NULL,
            tokens INTEGER NOT NULL, learning_rate REAL NOT NULL, grad_norm REAL NOT NULL, seconds REAL NOT NULL,
            warmup INTEGER NOT NULL, PRIMARY KEY (trial_id, step)) WITHOUT ROWID""",
        """CREATE TABLE evaluations (
            trial_id TEXT NOT NULL, step INTEGER NOT NULL, example_nats BLOB NOT NULL,
            example_target_tokens BLOB NOT NULL, seconds REAL NOT NULL, PRIMARY KEY (trial_id, step))""",
        """CREATE TABLE samples (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            seconds REAL NOT NULL, rss_bytes INTEGER NOT NULL, cpu_percent REAL NOT NULL,
            device_allocated_bytes INTEGER)""",
    ),
    (
        "ALTER TABLE facts ADD COLUMN kernels INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE facts ADD COLUMN kernels_reason TEXT NOT NULL DEFAULT 'this version had none'",
    ),
    (
        """CREATE TABLE spectra (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            trial_id TEXT NOT NULL, layer TEXT NOT NULL, singular_values BLOB NOT NULL, UNIQUE (trial_id, layer))""",
        """CREATE TABLE truncations (
            trial_id TEXT NOT NULL, rank INTEGER NOT NULL, example_nats BLOB NOT NULL,
            example_target_tokens BLOB NOT NULL, seconds REAL NOT NULL, PRIMARY KEY (trial_id, rank))""",
        """CREATE TABLE forgetting (
            trial_id TEXT PRIMARY KEY, text TEXT NOT NULL, text_hash TEXT NOT NULL, window_nats BLOB NOT NULL,
            window_target_tokens BLOB NOT NULL, seconds REAL NOT NULL)""",
    ),
    ("ALTER TABLE facts ADD COLUMN eval_tokens INTEGER",),
    (
        """CREATE TABLE predictions (
            what TEXT NOT NULL, rank INTEGER NOT NULL, device TEXT NOT NULL, tokens REAL NOT NULL,
            step_seconds REAL NOT NULL, factor REAL NOT NULL, step_flops REAL NOT NULL, step_bytes REAL NOT NULL,
            base_bytes INTEGER NOT NULL, adapter_bytes INTEGER NOT NULL, gradient_bytes INTEGER NOT NULL,
            optimizer_bytes INTEGER NOT NULL, activation_bytes INTEGER NOT NULL, rest_bytes INTEGER NOT NULL,
            PRIMARY KEY (what, rank))""",
    ),
    (
        "ALTER TABLE samples ADD COLUMN memory_traffic_bytes INTEGER",
        """CREATE TABLE cost_turns (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            rank INTEGER NOT NULL, turn INTEGER NOT NULL, step_seconds BLOB NOT NULL, warmup_steps INTEGER NOT NULL,
            step_tokens BLOB NOT NULL, cpu_seconds REAL NOT NULL, base_bytes INTEGER NOT NULL,
            forward_peak_bytes INTEGER NOT NULL, backward_peak_bytes INTEGER NOT NULL,
            optimizer_peak_bytes INTEGER NOT NULL, evaluation_peak_bytes INTEGER, held_bytes INTEGER NOT NULL,
            after_bytes INTEGER NOT NULL, reserved_peak_bytes INTEGER, memory_method TEXT NOT NULL,
            samples_bytes BLOB NOT NULL, warmup_samples INTEGER NOT NULL, heaviest_tokens INTEGER,
            activation_bytes INTEGER, product_flops INTEGER, product_bytes INTEGER, UNIQUE (rank, turn))""",
        """CREATE TABLE machine_rates (
            only INTEGER NOT NULL DEFAULT 1 UNIQUE CHECK (only = 1),
            dtype TEXT NOT NULL, flops_per_second REAL NOT NULL, bytes_per_second REAL NOT NULL)""",
        """CREATE TABLE gpu_samples (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            seconds REAL NOT NULL, rank INTEGER, uuid TEXT NOT NULL, name TEXT NOT NULL, memory_used_bytes INTEGER,
            memory_total_bytes INTEGER, utilization_percent INTEGER, memory_utilization_percent INTEGER,
            power_watts REAL, sm_clock_mhz INTEGER, memory_clock_mhz INTEGER, temperature_celsius INTEGER,
            throttle_reasons INTEGER)""",
    ),
    tuple(
        f"ALTER TABLE {table} ADD COLUMN checksum INTEGER"
        for table in (
            "facts",
            "environments",
            "trials",
            "outcomes",
            "adapters",
            "costs",
            "steps",
            "evaluations",
            "samples",
            "spectra",
            "truncations",
            "forgetting",
            "predictions",
            "cost_turns",
            "machine_rates",
            "gpu_samples",
        )
    ),
    ("CREATE TABLE step_blocks (trial_id TEXT PRIMARY KEY, data BLOB NOT NULL, checksum INTEGER NOT NULL)",),
)


def version(connection: sqlite3.Connection) -> int:
    """Read how many migrations the file has had."""
    number: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return number


def application(connection: sqlite3.Connection) -> int:
    """Read which program the file belongs to; 0 says nobody claimed it."""
    number: int = connection.execute("PRAGMA application_id").fetchone()[0]
    return number


def migrate(connection: sqlite3.Connection) -> None:
    """Apply the steps the file has not had, all in one transaction or none."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statements in MIGRATIONS[version(connection) :]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    except sqlite3.Error:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
