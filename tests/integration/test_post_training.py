"""Post-training analysis: complete, correct and resumable."""

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import peft
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorascope.analysis import summarize
from lorascope.data.dataset import Example
from lorascope.data.forgetting_text import read_forgetting_text
from lorascope.data.prepare import prepare
from lorascope.engine.evaluate import example_nats
from lorascope.errors import Interrupted
from lorascope.records import BASE_MODEL, ForgettingRecord, SpectrumRecord, TruncationRecord
from lorascope.run import post_training
from lorascope.search import analyses
from lorascope.spec.fields.answer import BUILTIN_TEXT
from lorascope.spec.load import load_spec
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from support.studies import Watcher, execute, read_study, study_of

pytestmark = pytest.mark.filterwarnings("ignore:fan_in_fan_out", "ignore:`is_gradient_checkpointing`")
Lorascope = Callable[..., tuple[int, str, str]]
Examined = tuple[list[SpectrumRecord], list[TruncationRecord], dict[str, ForgettingRecord]]


@pytest.fixture(scope="session")
def spec(model_folders: Mapping[str, str], rows_file: str) -> StudySpec:
    """Float64, so that another way to compute the same number gives the same digits."""
    return study_of(
        model_folders["llama"], rows_file, dtype="float64", ranks=(3, 4), alpha_rule="rslora",
        forgetting_text=BUILTIN_TEXT,
    )  # fmt: skip


@pytest.fixture(scope="session")
def study(spec: StudySpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examined") / "study"
    execute(spec, folder)
    return folder


def examined(folder: Path) -> Examined:
    """Everything that was stored, without what no two runs share: times."""
    with StudyStore.open(folder / "study.db") as store:
        return (
            store.read(SpectrumRecord),
            [replace(record, seconds=0.0) for record in store.read(TruncationRecord)],
            {record.trial_id: replace(record, seconds=0.0) for record in store.read(ForgettingRecord)},
        )


def plain_nats(model: torch.nn.Module, rows: tuple[Example, ...]) -> list[float]:
    """Each row's loss by the model's own forward pass and nothing of lorascope."""
    found = []
    for row in rows:
        ids = torch.from_numpy(row.input_ids)
        with torch.no_grad():
            logits = model(ids[None]).logits[0].double()
        nats = F.cross_entropy(logits[:-1], ids[1:], reduction="none")
        found.append(nats[torch.from_numpy(row.target_mask)[1:]].sum().item())
    return found


def base_of(spec: StudySpec) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(spec.model, dtype=torch.float64).eval()


def test_post_training_covers_every_rank(study: Path) -> None:
    spectra, truncations, forgetting = examined(study)
    layers = [f"model.layers.{n}.self_attn.{kind}_proj" for n in (0, 1) for kind in "qkv"]
    assert [(record.trial_id, record.layer) for record in spectra] == [
        (trial, layer) for trial in ("r3", "r4") for layer in layers
    ]
    assert {(record.trial_id, len(record.singular_values)) for record in spectra} == {("r3", 3), ("r4", 4)}
    assert [(record.trial_id, record.rank) for record in truncations] == [("r4", 1), ("r4", 2), ("r4", 3)]
    assert set(forgetting) == {BASE_MODEL, "r3", "r4"}
    summary = summarize(study)
    assert [(part.rank, part.module, part.layers) for part in summary.spectra] == [
        (rank, f"{kind}_proj", 2) for rank in (3, 4) for kind in "qkv"
    ]
    for part in summary.spectra:
        assert 1 < part.effective_rank_min <= part.effective_rank <= part.effective_rank_max <= part.rank
    assert summary.truncation.rank == 4
    assert summary.truncation.eval_loss == summary.ranks[1].eval_loss
    assert summary.truncation.cuts[2].trained_eval_loss == summary.ranks[0].eval_loss
    assert all(rank.forgetting.change != 0 for rank in summary.ranks)


def test_truncation_to_the_full_rank_keeps_the_loss(
    spec: StudySpec, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four of four directions, in factors that are not those of training."""
    monkeypatch.setattr(analyses, "truncation_ranks", lambda top, trained: (top,))
    execute(spec, tmp_path / "study")
    (whole,) = examined(tmp_path / "study")[1]
    trained = read_study(study).evaluations["r4"][-1]
    assert whole.example_target_tokens == trained.example_target_tokens
    assert whole.example_nats == pytest.approx(trained.example_nats, rel=1e-10)


def test_post_training_losses_equal_transformers_and_peft(
    lorascope: Lorascope, spec: StudySpec, study: Path, tmp_path: Path
) -> None:
    """The base on the generic text, a trained adapter on it, and an exported cut on the held-out rows."""
    tokenizer = AutoTokenizer.from_pretrained(spec.model)
    generic, held_out = read_forgetting_text(spec, tokenizer), prepare(spec, tokenizer).eval
    _, truncations, forgetting = examined(study)
    assert forgetting[BASE_MODEL].window_nats == pytest.approx(plain_nats(base_of(spec), generic.windows), rel=1e-9)
    adapted = peft.PeftModel.from_pretrained(base_of(spec), study / "adapters" / "r3")
    assert forgetting["r3"].window_nats == pytest.approx(plain_nats(adapted, generic.windows), rel=1e-9)
    assert lorascope("export", study, "--rank", 4, "--truncate", 2, "--to", tmp_path / "cut")[0] == 0
    cut = peft.PeftModel.from_pretrained(base_of(spec), tmp_path / "cut")
    assert cast("peft.LoraConfig", cut.peft_config["default"]).r == 2
    assert truncations[1].example_nats == pytest.approx(plain_nats(cut, held_out), rel=1e-9)
    assert lorascope("export", study, "--rank", 4, "--truncate", 2, "--to", tmp_path / "whole", "--merge")[0] == 0
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "whole", dtype=torch.float64).eval()
    assert truncations[1].example_nats == pytest.approx(plain_nats(merged, held_out), rel=1e-9)
    assert {path.name for path in tmp_path.iterdir()} == {"cut", "whole"}


@pytest.mark.parametrize("rank", [-1, 0, 4, 5])
def test_export_refuses_a_truncation_outside_the_rank(
    lorascope: Lorascope, study: Path, tmp_path: Path, rank: int
) -> None:
    code, _, err = lorascope("export", study, "--rank", 4, f"--truncate={rank}", "--to", tmp_path / "new")
    assert code == 2
    assert f"rank 4 cannot be truncated to rank {rank}" in err
    assert "from 1 to 3" in err
    assert list(tmp_path.iterdir()) == []


def counting(calls: int, error: Exception) -> Callable[..., object]:
    """``example_nats`` that works so many times and then fails."""
    left = [calls]

    def call(*args: Any, **kwargs: Any) -> object:
        left[0] -= 1
        if left[0] < 0:
            raise error
        return example_nats(*args, **kwargs)

    return call


@pytest.mark.parametrize("calls", [0, 2, 4])
def test_post_training_resumes_where_it_stopped(spec: StudySpec, study: Path, tmp_path: Path, calls: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(post_training, "example_nats", counting(calls, Interrupted("stopped as asked")))
        with pytest.raises(Interrupted):
            execute(spec, tmp_path / "study")
    assert sum(map(len, examined(tmp_path / "study")[1:])) == calls
    watcher = execute(spec, tmp_path / "study")
    assert watcher.steps == []
    assert {outcome.state for outcome in watcher.outcomes} == {"finished"}
    phases = [phase for phase in watcher.phases if phase.startswith("examining")]
    assert not any("singular" in phase for phase in phases)
    assert len([phase for phase in phases if "loss" in phase]) == 6 - calls
    assert examined(tmp_path / "study") == examined(study)
    assert not (tmp_path / "study" / "checkpoints").exists()


def test_post_training_out_of_memory_is_noted(spec: StudySpec, study: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(post_training, "example_nats", counting(3, MemoryError("no more")))
        watcher = execute(spec, tmp_path / "study")
    assert any("memory ran out (no more)" in note for note in watcher.notes)
    summary = summarize(tmp_path / "study")
    assert summary.study.complete
    assert summary.truncation is None
    assert summary.ranks[1].forgetting is not None
    execute(spec, tmp_path / "study")
    assert examined(tmp_path / "study") == examined(study)


def test_post_training_raises_other_errors(spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post_training, "example_nats", counting(1, RuntimeError("shapes do not fit")))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        execute(spec, tmp_path / "study")


def test_post_training_runs_without_training_on_a_finished_study(spec: StudySpec, study: Path, tmp_path: Path) -> None:
    execute(spec, tmp_path / "study")
    before = read_study(tmp_path / "study")
    connection = sqlite3.connect(tmp_path / "study" / "study.db")
    with connection:
        for table in ("spectra", "truncations", "forgetting"):
            connection.execute(f"DELETE FROM {table}")
    connection.close()
    assert execute(spec, tmp_path / "study").steps == []
    assert examined(tmp_path / "study") == examined(study)
    assert read_study(tmp_path / "study") == before
    assert "nothing was trained" in execute(spec, tmp_path / "study").notes[0]


def test_post_training_skips_what_is_off(model_folders: Mapping[str, str], rows_file: str, tmp_path: Path) -> None:
    spec = study_of(model_folders["llama"], rows_file, max_steps=1, truncation=False, forgetting_text="none")
    execute(spec, tmp_path / "study")
    spectra, truncations, forgetting = examined(tmp_path / "study")
    assert spectra
    assert (truncations, forgetting) == ([], {})
    summary = summarize(tmp_path / "study")
    assert (summary.truncation, summary.generic_text, summary.ranks[0].forgetting) == (None, None, None)
    assert "nothing was trained" in execute(spec, tmp_path / "study").notes[0]


def test_post_training_reads_a_given_forgetting_text(
    model_folders: Mapping[str, str], rows_file: str, tmp_path: Path
) -> None:
    """The file changed between two runs of an unfinished examination: no loss of the first version is kept."""
    text = tmp_path / "own.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 40, encoding="utf-8")
    spec = study_of(model_folders["llama"], rows_file, max_steps=1, truncation=False, forgetting_text=str(text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(post_training, "example_nats", counting(2, Interrupted("stopped as asked")))
        with pytest.raises(Interrupted):
            execute(spec, tmp_path / "study")
    first = examined(tmp_path / "study")[2]
    assert set(first) == {BASE_MODEL, "r2"}
    text.write_text("a lazy dog lies under the quick brown fox; " * 40, encoding="utf-8")
    execute(spec, tmp_path / "study")
    second = examined(tmp_path / "study")[2]
    assert {record.text_hash for record in second.values()} != {first["r2"].text_hash}
    assert len({record.text_hash for record in second.values()}) == 1
    assert summarize(tmp_path / "study").generic_text.name == str(text)


def test_post_training_skips_unfinished_ranks(model_folders: Mapping[str, str], rows_file: str, tmp_path: Path) -> None:
    spec = study_of(model_folders["llama"], rows_file, learning_rates=(1e30,), ranks=(2,), forgetting_text=BUILTIN_TEXT)
    watcher: Watcher = execute(spec, tmp_path / "study")
    assert not any(phase.startswith("examining") for phase in watcher.phases)
    assert examined(tmp_path / "study") == ([], [], {})
    assert summarize(tmp_path / "study").spectra == ()


@pytest.mark.parametrize(
    ("content", "what"),
    [(None, "cannot be read"), (b"\xff\xfe wrong", "not UTF-8 (byte 0)"), (b"", "0 tokens"), (b"short", "windows of")],
    ids=["absent", "binary", "empty", "short"],
)
def test_unusable_forgetting_text_is_refused_before_training(
    lorascope: Lorascope, model_folders: Mapping[str, str], rows_file: str, tmp_path: Path, content: bytes | None,
    what: str,
) -> None:  # fmt: skip
    if content is not None:
        (tmp_path / "own.txt").write_bytes(content)
    code, out, err = lorascope(
        "run", "--model", model_folders["llama"], "--dataset", rows_file, "--forgetting-text", tmp_path / "own.txt",
        "--out", tmp_path / "study",
    )  # fmt: skip
    assert code == 2
    assert what in err
    assert "forgetting_text" in err
    assert err.count("\n  -> ") == 1
    assert "loading the model" not in out
    assert not (tmp_path / "study").exists()


def test_report_shows_post_training_results(lorascope: Lorascope, spec: StudySpec, study: Path) -> None:
    assert lorascope("report", study)[0] == 0
    for name in ("report.md", "report.html"):
        text = (study / name).read_text(encoding="utf-8")
        for title in ("Effective rank", "Shrink after training", "Truncated adapters", "Loss on other text"):
            assert title in text
        assert f"{summarize(study).truncation.cuts[0].eval_loss:.4f}" in text
        assert "reference, which Python carries (PSF License)" in text.replace("&#39;", "'")
    assert (study / "charts" / "truncated_loss.png").is_file()
    assert load_spec(study / "study.yaml", {}) == spec
