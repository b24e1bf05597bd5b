"""An audit gives PEFT's losses for adapters that PEFT wrote, whole and truncated."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, PreTrainedModel

from lorascope.analysis.adapters.audit_schema import AdapterAudit
from lorascope.data.dataset import Example
from lorascope.run.audit import audit_adapter, check_truncation, write_truncated
from lorascope.run.audit_setup import prepare_audit
from support.studies import save_model_folder

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # what PEFT says
LAYERS = {"llama": ["q_proj", "v_proj", "down_proj"], "gpt2": ["c_attn", "c_fc"], "opt": ["q_proj", "fc1"]}
PATTERNS: dict[str, Any] = {"rank_pattern": {"v_proj": 2, r".*\.1\.mlp\.down_proj": 3},
                            "alpha_pattern": {"0.self_attn.q_proj": 7}}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    root = tmp_path_factory.mktemp("audited-bases")
    for kind in LAYERS:
        save_model_folder(root / kind, kind)
    return {kind: root / kind for kind in LAYERS}


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    rows = [{"prompt": f"add {n} to {n * n % 13}", "completion": " is " + "so " * (n % 4) + str(n)} for n in range(24)]
    path = tmp_path_factory.mktemp("audited-rows") / "rows.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return {"dataset": str(path), "samples": 0, "forgetting_text": "none", "dtype": "float32", "device": "cpu",
            "kernels": False}  # fmt: skip


def base(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def trained(folder: Path, to: Path, *, converted: bool = False, **options: Any) -> Path:
    """An adapter with random values away from its first ones, as PEFT saves it."""
    config = peft.LoraConfig(r=4, lora_alpha=6, task_type="CAUSAL_LM", **options)
    model: Any = peft.get_peft_model(base(folder), config)
    beginning = {}
    if converted:
        model.peft_config["default"].init_lora_weights = True
        model.save_pretrained(to / "first")
        model.peft_config["default"].init_lora_weights = options["init_lora_weights"]
        beginning = {"path_initial_model_for_weight_conversion": str(to / "first")}
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.3)
    model.save_pretrained(to / "adapter", **beginning)
    return to / "adapter"


def loss(model: torch.nn.Module, rows: tuple[Example, ...]) -> float:
    nats = 0.0
    with torch.no_grad():
        for row in rows:
            ids, at = torch.from_numpy(row.input_ids), torch.from_numpy(row.target_mask).nonzero()[:, 0]
            logits = model.eval()(ids[None]).logits[0, at - 1]
            nats += F.cross_entropy(logits.double(), ids[at], reduction="sum").item()
    return nats / sum(row.n_targets for row in rows)


def loaded(folder: Path, adapter: Path) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.PeftModel.from_pretrained(base(folder), adapter)


def audited(folder: Path, adapter: Path, fields: dict[str, object]) -> AdapterAudit:
    """The audit, whose losses are checked against PEFT's."""
    found = audit_adapter(adapter, fields)
    rows = prepare_audit(adapter, fields, lambda _: None).splits.eval
    assert found.base_eval_loss == pytest.approx(loss(base(folder), rows), rel=1e-6)
    assert found.eval_loss == pytest.approx(loss(loaded(folder, adapter), rows), rel=2e-5)
    assert abs(found.change) > 1e-3
    return found


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "endings": {"target_modules": ["q_proj"]},
    "expression": {"target_modules": r".*\.0\..*(q|up)_proj"},
    "all-linear": {"target_modules": "all-linear"},
    "blocks": {"target_modules": ["q_proj", "v_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
    "gaussian": {"init_lora_weights": "gaussian"},
    "not-zero": {"init_lora_weights": False},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "eva": {"init_lora_weights": "eva"},
    "rslora": {"use_rslora": True},
    "patterns": PATTERNS,
    "patterns-rslora": {**PATTERNS, "use_rslora": True},
    "modules": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "pissa": {"init_lora_weights": "pissa"},
    "pissa-rslora": {"init_lora_weights": "pissa", "use_rslora": True},
    "olora": {"init_lora_weights": "olora", **PATTERNS},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_losses_are_those_of_peft(
    name: str, folders: Mapping[str, Path], fields: dict[str, object], tmp_path: Path
) -> None:
    adapter = trained(folders["llama"], tmp_path, **{"target_modules": LAYERS["llama"], **OPTIONS[name]})
    found = audited(folders["llama"], adapter, fields)
    assert [cut.rank for cut in found.cuts] == ([1, 2, 4] if found.rank == 8 else [1, 2])
    assert found.rank == (8 if name in {"pissa", "pissa-rslora", "olora"} else 4)


@pytest.mark.parametrize("kind", ["gpt2", "opt"])
def test_other_models_have_the_losses_of_peft(
    kind: str, folders: Mapping[str, Path], fields: dict[str, object], tmp_path: Path
) -> None:
    adapter = trained(folders[kind], tmp_path, target_modules=LAYERS[kind], fan_in_fan_out=kind == "gpt2")
    audited(folders[kind], adapter, fields)


@pytest.mark.parametrize("how", ["pissa", "olora"])
def test_converted_adapters_have_the_losses_of_peft(
    how: str, folders: Mapping[str, Path], fields: dict[str, object], tmp_path: Path
) -> None:
    adapter = trained(folders["llama"], tmp_path, converted=True, init_lora_weights=how, target_modules=LAYERS["llama"])
    assert audited(folders["llama"], adapter, fields).rank == 8


@pytest.mark.parametrize(("name", "rank"), [("patterns-rslora", 2), ("modules", 2), ("pissa", 2), ("orthogonal", 1)])
def test_a_truncated_adapter_has_the_audited_loss_in_peft(
    name: str, rank: int, folders: Mapping[str, Path], fields: dict[str, object], tmp_path: Path
) -> None:
    adapter = trained(folders["llama"], tmp_path, **{"target_modules": LAYERS["llama"], **OPTIONS[name]})
    found = audit_adapter(adapter, fields)
    write_truncated(check_truncation(adapter, rank, tmp_path / "cut", {}), rank, tmp_path / "cut")
    rows = prepare_audit(adapter, fields, lambda _: None).splits.eval
    cut = next(cut for cut in found.cuts if cut.rank == rank)
    assert cut.eval_loss == pytest.approx(loss(loaded(folders["llama"], tmp_path / "cut"), rows), rel=2e-5)
    assert abs(cut.excess_loss) > 1e-4
