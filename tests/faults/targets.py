"""Fuzz targets: each reads bytes from outside the program and may refuse them, but nothing else."""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import torch
from safetensors.torch import save

from lorascope.data.sources.files import READERS, read_file
from lorascope.data.formats.rendering import compile_template
from lorascope.engine.checkpoint import read_steps
from lorascope.errors import InputError, LorascopeError
from lorascope.modeling.adapters.peft_io import read_updates
from lorascope.modeling.adapters.stored_adapter import CONFIG, WEIGHTS
from lorascope.spec.load import dump_spec, load_spec
from lorascope.spec.schema import StudySpec


@dataclass(frozen=True)
class Target:
    """A reader, and inputs to begin with."""

    read: Callable[[bytes], None]
    """Raises nothing but what it should not."""
    seeds: tuple[bytes, ...]


@contextmanager
def refusing(kind: type[Exception] = InputError) -> Iterator[None]:
    try:
        yield
    except kind as error:
        if not 0 < len(str(error).strip()) < 10_000:
            raise ValueError("a message that nobody reads") from error


def _file(name: str) -> Path:
    return Path(_FOLDER.name) / name


_FOLDER = tempfile.TemporaryDirectory(prefix="lorascope-fuzz-")


def study(data: bytes) -> None:
    path = _file("study.yaml")
    path.write_bytes(data)
    with refusing():
        dump_spec(load_spec(path, {}))


def rows(ending: str) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        path = _file(f"rows{ending}")
        path.write_bytes(data)
        with refusing():
            len(read_file(path))

    return read


def template(data: bytes) -> None:
    text = data.decode("utf-8", errors="replace")
    with refusing():
        compile_template(text, field="prompt_template", columns=("a", "b")).fill({"a": "x", "b": None}, 1)


def checkpoint(data: bytes) -> None:
    path = _file("round-0.safetensors")
    path.write_bytes(data)
    with refusing(LorascopeError):
        read_steps(path)


def adapter_weights(data: bytes) -> None:
    folder = _file("weights")
    folder.mkdir(exist_ok=True)
    (folder / CONFIG).write_bytes(_CONFIG)
    (folder / WEIGHTS).write_bytes(data)
    with refusing():
        read_updates(folder)


def adapter_config(data: bytes) -> None:
    folder = _file("config")
    folder.mkdir(exist_ok=True)
    (folder / CONFIG).write_bytes(data)
    (folder / WEIGHTS).write_bytes(_WEIGHTS)
    with refusing():
        read_updates(folder)


_CONFIG = json.dumps({"r": 2, "lora_alpha": 4, "use_rslora": False, "target_modules": ["a"]}).encode()
_WEIGHTS = save({f"base_model.model.a.lora_{which}.weight": torch.ones(2, 2) for which in "AB"}, {"format": "pt"})
_CHECKPOINT = save({"r2.weights": torch.ones(4)}, {"steps": '{"r2": 0}', "sha256": "0" * 64})
_ROWS = [{"prompt": "a\u00e9", "completion": "b", "n": 1}, {"prompt": None, "completion": "c", "n": 2}]


def _parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.Table.from_pylist(_ROWS), sink)
    return bytes(sink.getvalue())


_BOMB = b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n".encode()
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
TARGETS: Mapping[str, Target] = {
    "study": Target(study, (
        dump_spec(StudySpec()).encode(), b"ranks: [8, 16]\nlearning_rates: auto\n", _BOMB + b"ranks: *i\n",
        b"model: !!python/object/apply:os.system ['true']\n", b"- " * 2000, b"ranks: 1e999\nseeds: [.nan]\n",
    )),
    ".json": Target(rows(".json"), (json.dumps(_ROWS).encode(), b'{"a": ' * 2000, b"[" * 100_000, b'[{"a": 1e999}]')),
    ".jsonl": Target(rows(".jsonl"), ("\n".join(map(json.dumps, _ROWS)).encode(), b'{"a": "\\ud800"}\n', b"{}\n{}")),
    ".csv": Target(rows(".csv"), (b'a,b\n"x, y",1\nz,2\n', b"a,a\n1,2\n", b'a\n"' + b"x" * 5000, b"\xff\xfe,\x00\n")),
    ".tsv": Target(rows(".tsv"), (b'a\tb\n"x\ty"\t1\nz\t2\n', b"a\ta\n1\t2\n")),
    ".parquet": Target(rows(".parquet"), (_parquet(),)),
    "template": Target(template, (b"{a} and {b}", b"{a.__class__}", b"{a[0]}{b!r:>9}", b"{{{a}}}", b"{0}{}")),
    "checkpoint": Target(checkpoint, (_CHECKPOINT,)),
    "adapter weights": Target(adapter_weights, (_WEIGHTS,)),
    "adapter config": Target(adapter_config, (_CONFIG,)),
}  # fmt: skip
assert {name for name in TARGETS if name.startswith(".")} == set(READERS)
