"""Whole studies with PEFT's options: planned, stopped and continued, examined, exported, loaded into PEFT."""

import json
import os
import signal
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from lorascope.analysis import summarize
from lorascope.errors import Interrupted
from lorascope.records import (
    AdapterRecord,
    EvalRecord,
    ForgettingRecord,
    PeftCheck,
    ResolvedStudy,
    SpectrumRecord,
    TruncationRecord,
)
from lorascope.store import StudyStore
from support.studies import execute, read_study, save_model_folder, study_of

Lorascope = Callable[..., tuple[int, str, str]]
OPTIONS: dict[str, dict[str, Any]] = {
    "pissa": {"init_lora_weights": "pissa", "ranks": (2, 4)},
    "modules": {"modules_to_save": ("embed_tokens", "lm_head"), "target_modules": "all-linear"},
    "patterns": {
        "rank_pattern": {"q_proj": 1, "layers.1.mlp.up_proj": 6}, "alpha_pattern": {"v_proj": 5.5},
        "exclude_modules": ("o_proj",), "target_modules": "all-linear",
    },
}  # fmt: skip


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(torch.arange(5, 25)[None]).logits
    return found


def assert_sizes_are_those_of_the_files(folder: Path, planned: list[dict[str, Any]], *, twice: bool) -> None:
    with StudyStore.open(folder / "study.db") as store:
        records = {record.rank: record for record in store.read(AdapterRecord)}
    for plan, part in zip(planned, summarize(folder).ranks, strict=True):
        adapter = folder / "adapters" / f"r{part.rank}"
        file = (adapter / "adapter_model.safetensors").read_bytes()
        n_bytes = len(file) - 8 - int.from_bytes(file[:8], "little")
        rank = json.loads((adapter / "adapter_config.json").read_text())["r"]
        assert rank == (2 if twice else 1) * part.rank
        assert (rank, n_bytes) == (plan["saved_rank"], plan["adapter_bytes"])
        assert (rank, n_bytes) == (part.saved_rank, part.adapter_bytes)
        record = records[part.rank]
        assert (rank, n_bytes) == (record.saved_rank, record.saved_bytes)
        assert record.trainable_parameters * 4 * rank == n_bytes * part.rank


@pytest.mark.parametrize("name", OPTIONS)
def test_study_with_options_goes_from_plan_to_export(
    lorascope: Lorascope, model_folders: Mapping[str, str], rows_file: str, name: str, tmp_path: Path
) -> None:
    options = OPTIONS[name] | {"truncation": True, "forgetting_text": "builtin:python-reference"}
    spec = study_of(model_folders["llama"], rows_file, **options)
    folder = tmp_path / "study"

    def stop(step: int) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    execute(spec, tmp_path / "whole")
    with pytest.raises(Interrupted):
        execute(spec, folder, stop)
    execute(spec, folder)
    assert read_study(folder) == read_study(tmp_path / "whole")

    code, out, err = lorascope("plan", folder / "study.yaml", "--json")
    assert (code, err) == (0, "")
    planned = {part["rank"]: part["trainable_parameters"] for part in json.loads(out)["ranks"]}
    assert_sizes_are_those_of_the_files(folder, json.loads(out)["ranks"], twice=name == "pissa")
    with StudyStore.open(folder / "study.db") as store:
        assert {r.rank: r.trainable_parameters for r in store.read(AdapterRecord)} == planned
        first, *_, last = store.read(EvalRecord, trial_id="r4")
        assert abs(last.loss - first.loss) > 1e-3
        assert {record.trial_id for record in store.read(SpectrumRecord)} == {"r2", "r4"}
        assert {record.rank for record in store.read(TruncationRecord)} == {1, 2}
        assert {record.trial_id for record in store.read(ForgettingRecord)} == {"", "r2", "r4"}

    assert not [one for one in summarize(folder).cautions if one.kind == "adapter_differs"]
    for flags, folder_name in ([], "adapter"), (["--truncate", 3], "cut"), (["--merge"], "merged"):
        assert lorascope("export", folder, "--rank", 4, "--to", tmp_path / folder_name, *flags)[0] == 0
    code, _, err = lorascope("export", folder, "--rank", 4, "--to", tmp_path / "own", "--truncate", 4)
    assert (code, "from 1 to 3" in err) == ((0, False) if name == "pissa" else (2, True))
    base = model_folders["llama"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole, cut = (
            peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), path)
            for path in (tmp_path / "adapter", tmp_path / "cut")
        )
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
        plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    n_loaded = sum(p.numel() for n, p in whole.named_parameters() if "lora_" in n or ".modules_to_save." in n)
    with StudyStore.open(folder / "study.db") as store:
        assert [4 * n_loaded] == [r.saved_bytes for r in store.read(AdapterRecord) if r.rank == 4]
    torch.testing.assert_close(logits(whole), logits(merged), rtol=1e-4, atol=1e-4)
    change = (logits(whole) - logits(plain)).norm()
    assert change > 0.1
    assert (logits(cut) - logits(whole)).norm() < 0.8 * change


@pytest.mark.filterwarnings("ignore:The following .*_pattern keys did not match:RuntimeWarning")  # it uses them
@pytest.mark.parametrize("rule", ["same", "per-expert-share"])
def test_whole_study_with_experts_alone(lorascope: Lorascope, rule: str, rows_file: str, tmp_path: Path) -> None:
    save_model_folder(tmp_path / "model", "mixtral")
    spec = study_of(
        str(tmp_path / "model"), rows_file, target_modules=(), target_parameters=("gate_up_proj", "experts.down_proj"),
        expert_rank_rule=rule,
        lora_dropout=0.0, truncation=True,
    )  # fmt: skip
    folder = tmp_path / "study"
    execute(spec, folder)
    with StudyStore.open(folder / "study.db") as store:
        checks, resolved = store.read(PeftCheck), store.read_one(ResolvedStudy)
        sizes = {record.rank: record.trainable_parameters for record in store.read(AdapterRecord)}
        spectra = store.read(SpectrumRecord)
    assert [(check.layers_left_out, check.error) for check in checks] == [(0, None)] * len(spec.ranks)
    for check in checks:
        assert check.nats != pytest.approx(check.base_nats, rel=1e-3)
    assert resolved is not None
    codes = [note.code for note in resolved.data_notes]
    assert ("targets.expert_ranks" if rule == "same" else "targets.expert_shares") in codes
    assert len(resolved.target_modules) == 2 * 2 * 4
    assert {len(record.singular_values) for record in spectra} == {
        rank if rule == "same" else rank // 2 for rank in spec.ranks
    }
    code, out, err = lorascope("plan", folder / "study.yaml", "--json")
    assert (code, err) == (0, "")
    planned: Mapping[str, Any] = json.loads(out)
    assert {part["rank"]: part["trainable_parameters"] for part in planned["ranks"]} == sizes
    assert lorascope("export", folder, "--rank", max(spec.ranks), "--to", tmp_path / "merged", "--merge")[0] == 0
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = peft.PeftModel.from_pretrained(base, folder / "adapters" / f"r{max(spec.ranks)}")
    torch.testing.assert_close(logits(merged), logits(whole), rtol=1e-4, atol=1e-4)
