"""``lorascope plan``: agrees with a run, takes little time and memory, and refuses bad input."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import peft
import pytest
from transformers import LlamaConfig

import output_reference
from lorascope.costmodel import machine, plan
from lorascope.costmodel.calibration import find_calibration
from lorascope.costmodel.cost_types import CostPrediction
from lorascope.costmodel.devices import find_device
from lorascope.costmodel.model import predict
from lorascope.costmodel.plan import START_SECONDS
from lorascope.records import AdapterRecord, PredictionRecord, ResolvedStudy, SoloRun
from lorascope.run.predict import update_calibration
from lorascope.spec.peft_options import REFUSED
from lorascope.store import StudyStore
from support.studies import execute, study_of

Lorascope = Callable[..., tuple[int, str, str]]
SPLIT = {"base_bytes", "adapter_bytes", "gradient_bytes", "optimizer_bytes", "activation_bytes", "rest_bytes"}


@pytest.fixture
def flags(model_folders: Mapping[str, str], rows_file: str) -> list[str]:
    return [f"--model={model_folders['llama']}", f"--dataset={rows_file}", "--ranks=2,4", "--dtype=float32",
            "--per-device-train-batch-size=4", "--max-steps=6"]  # fmt: skip


def planned(lorascope: Lorascope, *arguments: str) -> dict:
    code, out, err = lorascope("plan", *arguments, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    jsonschema.validate(found, output_reference.outputs_schema() | {"$ref": "#/$defs/PlanOutput"})
    return found


def test_plan_predicts_what_the_run_measures(
    lorascope: Lorascope, flags: list[str], model_folders: Mapping[str, str], rows_file: str, tmp_path: Path
) -> None:
    resolved = planned(lorascope, *flags)
    spec = study_of(
        model_folders["llama"], rows_file, max_length=1024, eval_examples=None, tokens_per_pass=3072, cost="quick",
        alpha_rule="fixed", lora_dropout=0.0, target_modules="all-linear",
    )  # fmt: skip
    execute(spec, tmp_path / "study")
    with StudyStore.open(tmp_path / "study" / "study.db") as store:
        adapters, found, predictions = (
            store.read(AdapterRecord),
            store.read_one(ResolvedStudy),
            store.read(PredictionRecord),
        )
    assert found is not None
    assert (resolved["base_parameters"], resolved["total_steps"]) == (found.base_parameters, found.total_steps)
    assert resolved["adapted_modules"] == len(found.target_modules)
    assert resolved["rows"] == "the rows themselves"
    for part, record in zip(resolved["ranks"], adapters, strict=True):
        assert part["rank"] == record.rank
        assert part["trainable_parameters"] == record.trainable_parameters
        assert part["adapter_bytes"] == record.parameter_bytes
        assert set(part["memory_split"]) == SPLIT
        assert sum(part["memory_split"].values()) == part["peak_memory_bytes"]
        assert part["runtime_seconds"] == pytest.approx(6 * part["step_seconds"])
    assert [(record.what, record.rank) for record in predictions] == [
        ("alone", 2),
        ("alone", 4),
        ("full", 0),
        ("joint", 0),
    ]


def test_plan_is_calibrated_by_a_finished_study(
    lorascope: Lorascope, flags: list[str], model_folders: Mapping[str, str], rows_file: str, tmp_path: Path
) -> None:
    assert planned(lorascope, *flags)["calibration"] is None
    execute(study_of(model_folders["llama"], rows_file, cost="quick"), tmp_path / "study")
    code, _, err = lorascope("report", tmp_path / "study")
    assert (code, err) == (0, "")
    summary = json.loads((tmp_path / "study" / "summary.json").read_text(encoding="utf-8"))
    predicted = summary["predicted"]
    assert predicted["factor"] == 1.0
    for part, measured in zip(predicted["ranks"], summary["ranks"], strict=True):
        for name in ("step_seconds", "peak_memory_bytes"):
            value = part[name]
            assert value["measured"] == measured[name]
            assert value["error"] == pytest.approx(value["predicted"] / value["measured"] - 1)
    assert predicted["joint"]["step_seconds"]["measured"] > 0
    assert predicted["full_fine_tuning"]["step_seconds"]["measured"] is None
    resolved = planned(lorascope, *flags)
    known = find_calibration(predicted["device"], "float32", resolved["base_parameters"])
    assert known is not None
    assert resolved["calibration"] == {
        "base_parameters": known.parameters,
        "factor": known.factor,
        "joint_factor": known.joint_factor,
    }
    # a study with solo runs of unlike pace does not replace a calibration
    with StudyStore.create(tmp_path / "study" / "study.db") as store:
        run = store.read(SoloRun)[0]
        store.put(replace(run, step_seconds=tuple(9 * seconds for seconds in run.step_seconds)))
    update_calibration(tmp_path / "study" / "study.db")
    assert find_calibration(predicted["device"], "float32", resolved["base_parameters"]) == known


def test_plan_says_what_a_time_budget_buys(lorascope: Lorascope, flags: list[str]) -> None:
    flags = [flag for flag in flags if not flag.startswith("--max-steps")]
    epochs = planned(lorascope, *flags, "--device=L4", "--num-train-epochs=400")
    assert epochs["forecast"] is None  # of one seed
    found = planned(lorascope, *flags, "--device=L4", "--num-train-epochs=400", "--time-budget=90s")
    assert 20 < found["total_steps"] < epochs["total_steps"]
    assert 80 < found["total_seconds"] <= 90
    forecast = found["forecast"]
    assert forecast["noise"]["assumed"]
    assert forecast["first_look"]["seeds"] == 3
    assert forecast["last_look"]["seeds"] >= 3
    assert 0 == forecast["chance_if_equal"] == forecast["chance_if_worse"]  # forty rows are too few
    more = planned(lorascope, *flags, "--device=L4", "--num-train-epochs=400", "--until-decided")
    assert more["total_steps"] == 400 * 32 / 4  # a fifth of the rows is held out
    assert more["forecast"]["last_look"]["seeds"] == 8
    assert more["total_seconds"] > found["total_seconds"]
    flags = [flag if flag != "--ranks=2,4" else "--ranks=2" for flag in flags]
    one = planned(lorascope, *flags, "--device=L4", "--num-train-epochs=400", "--time-budget=90s")
    assert one["forecast"] is None
    assert one["total_seconds"] <= 90


def test_plan_refuses_a_time_budget_as_a_run_does(lorascope: Lorascope, flags: list[str]) -> None:
    code, out, err = lorascope("plan", *flags, "--device=L4", "--time-budget=30s")
    assert (code, out) == (2, "")
    assert re.match(
        r"lorascope: time_budget 30s is too short: 6 steps of each rank at its learning rates, with evaluations, need "
        r"about [\d.]+ s at the predicted pace\n  -> give more time, ",
        err,
    )


def test_plan_does_not_guess_what_unknown_rows_show(lorascope: Lorascope, flags: list[str]) -> None:
    flags = [*(flag for flag in flags if not flag.startswith("--dataset")), "--dataset=some/rows", "--device=L4"]
    for asked in ("--time-budget=90s", "--until-decided"):
        found = planned(lorascope, *flags, asked)
        assert found["forecast"] is None
        assert any("give --max-steps and --eval-examples" in note for note in found["notes"])
    assert planned(lorascope, *flags, "--time-budget=90s", "--eval-examples=30")["forecast"]["first_look"]["rows"] == 30


def test_plan_of_several_seeds_says_how_likely_a_verdict_is(
    lorascope: Lorascope, flags: list[str], model_folders: Mapping[str, str], rows_file: str, tmp_path: Path
) -> None:
    flags = [*flags[:-1], "--device=L4", "--max-steps=20", "--seeds=0,1"]
    out = " ".join(lorascope("plan", *flags)[1].split())
    assert "There will be no verdict: it takes at least 20 steps and 20 held-out rows." in out
    assert "Steps of a trial: 20; seeds: 2; held-out rows: 4. Noise is assumed" in out
    flags.append("--eval-examples=20")
    assumed = planned(lorascope, *flags)["forecast"]
    assert 0 < assumed["chance_if_equal"] < assumed["chance_if_worse"] < 0.5
    execute(
        study_of(model_folders["llama"], rows_file, seeds=(0, 1), eval_examples=20, max_steps=2, cost="off"),
        tmp_path / "study",
    )
    known = planned(lorascope, *flags)["forecast"]
    assert not known["noise"]["assumed"]
    assert known["smallest_difference"] != assumed["smallest_difference"]
    out = " ".join(lorascope("plan", *flags)[1].split())
    assert f"A verdict is about {known['chance_if_equal']:.0%} likely if all ranks are equal, " in out
    assert f"Differences of {known['smallest_difference']:.4f} or more can be told." in out
    assert "Noise is as in the last study of this model and data set." in out


def test_plan_covers_every_device(lorascope: Lorascope, flags: list[str]) -> None:
    small, large = (planned(lorascope, *flags, f"--device={name}") for name in ("L4", "h100"))
    assert small["device"] == "L4"
    assert small["device_memory_bytes"] == 24_000_000_000
    assert small["ranks"][0]["fits"]
    assert small["ranks"][0]["peak_memory_bytes"] == large["ranks"][0]["peak_memory_bytes"]
    assert small["ranks"][0]["largest_batch"] < large["ranks"][0]["largest_batch"]
    assert small["full_fine_tuning"]["trainable_parameters"] == small["base_parameters"]


def test_plan_begins_with_the_answer(lorascope: Lorascope, flags: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    found = planned(lorascope, *flags, "--device=L4")
    parts = found["training_seconds"] + found["evaluation_seconds"]
    assert found["total_seconds"] > parts + START_SECONDS
    code, out, _ = lorascope("plan", *flags, "--device=L4")
    first, *rest = out.splitlines()
    assert code == 0
    assert re.fullmatch(r"Fits: [\d.]+ MB of 24\.00 GB, about \d+ s with start, largest batch [\d,]+", first)
    assert first.endswith(f"largest batch {found['joint']['largest_batch']:,}")
    heading = next(line for line in rest if "peak mem" in line)
    assert heading.split() == [
        "rank",
        "params",
        "adapter",
        "step",
        "all",
        "steps",
        "peak",
        "mem",
        "fits",
        "largest",
        "batch",
    ]
    assert max(map(len, out.splitlines())) <= 80
    # a step of a tiny model takes less than ten milliseconds
    assert " ms " in next(line for line in rest if line.split()[:1] == ["2"])


def test_plan_says_what_does_not_fit(lorascope: Lorascope, flags: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    flags = [*flags, "--device=L4"]
    found, device = planned(lorascope, *flags), find_device("L4")
    assert device is not None
    at_once, alone = found["joint"]["peak_memory_bytes"], found["ranks"][-1]["peak_memory_bytes"]
    for memory, said in (
        ((at_once + alone) // 2, "Fits in turns: all 2 together need "),
        (10**6, "Does not fit: rank 2 "),
    ):
        smaller = replace(device, memory_bytes=memory)
        monkeypatch.setattr(machine, "find_device", lambda _, smaller=smaller: smaller)
        assert lorascope("plan", *flags)[1].startswith(said)


def test_sets_that_fit_one_by_one_but_not_together_train_in_turns(
    lorascope: Lorascope, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other, third = "--target-modules=q_proj,v_proj", "--target-modules=all-linear", "--target-modules=o_proj"
    flags = [*flags, "--device=L4"]
    together, alone = planned(lorascope, *flags, one, other, third), planned(lorascope, *flags, other)
    device = find_device("L4")
    assert device is not None
    all_bytes, one_bytes = together["joint"]["peak_memory_bytes"], alone["joint"]["peak_memory_bytes"]
    states = sum(together["joint"]["memory_split"][f"{name}_bytes"] for name in ("adapter", "gradient", "optimizer"))
    parameters = sum(part["trainable_parameters"] for part in together["ranks"])
    assert states == 16 * parameters
    single = [planned(lorascope, *flags, name)["joint"]["flops_per_token"] for name in (one, other, third)]
    assert together["joint"]["flops_per_token"] == pytest.approx(sum(single) / 3)

    smaller = replace(device, memory_bytes=(all_bytes + one_bytes) // 2)
    monkeypatch.setattr(machine, "find_device", lambda _: smaller)
    assert not planned(lorascope, *flags, one, other, third)["joint"]["fits"]
    shown = lorascope("plan", *flags, one, other, third)[1]
    assert shown.startswith("Fits in turns: all 6 together need ")
    assert "the step of rank 2 of q_proj,v_proj." in " ".join(shown.split())


def test_plan_table_fits_a_narrow_terminal(
    lorascope: Lorascope, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    code, out, _ = lorascope("plan", *flags, "--device=L4")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 40
    assert "Left out for want of width: params, adapter" in " ".join(out.split())


def test_plan_names_ranks_beyond_the_limits(lorascope: Lorascope, flags: list[str]) -> None:
    flags = [*flags, "--device=L4"]
    first, second = (part["adapter_bytes"] for part in planned(lorascope, *flags)["ranks"])
    limit = f"--max-adapter-mb={(first + second) / 2e6}"
    resolved = planned(lorascope, *flags, limit)
    assert [part["beyond_limits"] for part in resolved["ranks"]] == [[], ["max_adapter_mb"]]
    assert resolved["unchecked_limits"] == []
    assert "Over the limits: rank 4 by its adapter " in lorascope("plan", *flags, limit)[1]
    assert "No rank is predicted to exceed the limits." in lorascope("plan", *flags, "--max-memory=1TB")[1]
    assert "the limits" not in lorascope("plan", *flags)[1]


def test_plan_skips_the_time_limit_without_a_time(lorascope: Lorascope, model_folders: Mapping[str, str]) -> None:
    flags = [f"--model={model_folders['llama']}", "--dataset=some/rows", "--ranks=2", "--max-seconds=9", "--device=L4"]
    assert planned(lorascope, *flags)["unchecked_limits"] == ["max_seconds"]
    out = lorascope("plan", *flags)[1]
    assert "max_seconds was not checked" in out
    assert "the limits" not in out
    out = " ".join(lorascope("plan", *flags, "--max-steps=9")[1].split())
    assert ", at least 30 s with start, " in out
    assert "evaluations come on top" in out


def test_plan_notes_a_larger_rank_predicted_to_be_faster(
    lorascope: Lorascope, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def quicker(*arguments: Any, **named: Any) -> CostPrediction:
        return replace(predict(*arguments, **named), step_seconds=1 / (1 + sum(arguments[3])))

    assert not any("predicted to be faster" in note for note in planned(lorascope, *flags, "--device=L4")["notes"])
    monkeypatch.setattr(plan, "predict", quicker)
    assert any("predicted to be faster" in note for note in planned(lorascope, *flags, "--device=L4")["notes"])


def write_config(folder: Path, **config: object) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(folder)


def test_plan_of_a_70b_model_takes_little_memory(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=128256, hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64,
        num_key_value_heads=8, max_position_embeddings=8192, tie_word_embeddings=False,
    )  # fmt: skip
    config.save_pretrained(tmp_path / "model")
    # The kernel's mark of this memory alone: what getrusage gives starts at the parent's
    code = (
        "import re, sys\nfrom lorascope.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "peak = 1024 * int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        "print(peak, file=sys.stderr)"
    )
    arguments = ("plan", "--model", str(tmp_path / "model"), "--dataset", "someone/rows", "--device", "H200", "--json")
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    peak_bytes = float(done.stderr.split()[-1])
    resolved = json.loads(done.stdout)
    assert resolved["base_parameters"] == 70_553_706_496
    assert resolved["total_steps"] is None
    assert resolved["rows"] == "assumed: 1024 tokens each"
    assert not resolved["ranks"][0]["fits"]
    assert peak_bytes < 1e9


@pytest.mark.parametrize(
    ("config", "arguments", "parts"),
    [
        ({"model_type": "llama", "num_hidden_layers": 2}, (), ("hidden_size", "config.json")),
        ({"model_type": "llama", "hidden_size": 64}, (), ("num_hidden_layers", "config.json")),
        ({"model_type": "frobnicator", "hidden_size": 64, "num_hidden_layers": 2}, (), ("frobnicator",)),
        ({"hidden_size": 64, "num_hidden_layers": 2}, (), ("model_type",)),
        (None, ("--device=L400",), ("L400", "T4, L4", "cpu")),
        (None, ("--device=mps",), ("mps", "only cpu and cuda", "use cpu")),
        (None, ("--device=M1",), ("M1", "only cpu and cuda", "T4, L4")),
        (None, ("--device=T4", "--dtype=bfloat16"), ("T4", "bfloat16", "--dtype float32")),
        (None, ("--target-modules=nothing",), ("nothing", "q_proj")),
        (None, ("--ranks=2,4096",), ("4096", "at most")),
        (None, ("--dataset=nowhere.json",), ("'nowhere.json' does not exist", "check the path")),
    ],
)
def test_plan_refuses_bad_input(
    lorascope: Lorascope,
    flags: list[str],
    tmp_path: Path,
    config: dict[str, object] | None,
    arguments: tuple[str, ...],
    parts: tuple[str, ...],
) -> None:
    given = [*flags, *arguments]
    if config is not None:
        given.append(f"--model={write_config(tmp_path / 'model', **config)}")
        given.remove(flags[0])
    else:
        given = [flag for flag in given if not (flag.startswith("--dataset=") and arguments[0].startswith("--dataset"))]
        given += [] if any(flag.startswith("--dataset=") for flag in given) else [arguments[0]]
        given = [flag for flag in given if not (flag == "--ranks=2,4" and "--ranks=2,4096" in arguments)]
        given = [flag for flag in given if not (flag == "--dtype=float32" and "--dtype=bfloat16" in arguments)]
    code, out, err = lorascope("plan", *given)
    assert (code, out) == (2, "")
    assert err.startswith("lorascope: ")
    assert err.count("\n  -> ") == 1
    for part in parts:
        assert part in err


def test_plan_starts_from_the_configuration_of_an_adapter(
    lorascope: Lorascope, model_folders: Mapping[str, str], tmp_path: Path
) -> None:
    base = model_folders["llama"]
    config: Any = peft.LoraConfig
    config(task_type="CAUSAL_LM", r=2, target_modules=["v_proj"], base_model_name_or_path=base).save_pretrained(
        tmp_path
    )
    flags = ("plan", "--peft-config", tmp_path, "--device", "cpu", "--json")
    code, out, err = lorascope(*flags)
    assert (code, "none of its weights" in err) == (0, True)
    assert [part["rank"] for part in json.loads(out)["ranks"]] == [2]
    assert json.loads(out)["adapted_modules"] == 2
    code, out, err = lorascope("plan", "--peft-config", tmp_path / "adapter_config.json", "--ranks", "4,8", *flags[3:])
    assert (code, err) == (0, "")
    assert [part["rank"] for part in json.loads(out)["ranks"]] == [4, 8]
    for flag, name in ("--use-dora", "use_dora"), ("--bias=all", "bias"), ("--loftq-config=a", "loftq_config"):
        code, _, err = lorascope(*flags, flag)
        assert code == 2
        assert f"{name} is not supported: {REFUSED[name]}" in err


def test_plan_places_the_first_round_on_several_devices(lorascope: Lorascope, tmp_path: Path) -> None:
    """Four rates of a rank do not fit a T4 together: they stay on one and train in turns."""
    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=2048, tie_word_embeddings=True,
    )  # fmt: skip
    config.save_pretrained(tmp_path / "model")
    flags = [f"--model={tmp_path / 'model'}", "--dataset=some/rows", "--ranks=8,256,512", "--max-steps=100",
             "--learning-rates=1e-4,2e-4,4e-4,8e-4", "--devices=2xT4"]  # fmt: skip
    found = planned(lorascope, *flags)
    placed = found["devices"]
    assert found["device"] == "T4"
    assert set(placed["use"]) == {"T4 1", "T4 2"}
    trials = [trial for group in placed["groups"] for trial in group["trials"]]
    assert len(trials) == len(set(trials)) == 12
    on = {trial: group["device"] for group in placed["groups"] for trial in group["trials"]}
    for rank in 8, 256, 512:
        assert len({device for trial, device in on.items() if trial.startswith(f"r{rank}-")}) == 1
    assert placed["earliest_seconds"] <= placed["end_seconds"]
    one = planned(lorascope, *flags[:-1], "--devices=T4")["devices"]
    assert placed["end_seconds"] < one["end_seconds"] == pytest.approx(sum(group["seconds"] for group in one["groups"]))


def test_plan_of_a_time_budget_places_the_steps_that_it_buys(lorascope: Lorascope, flags: list[str]) -> None:
    flags = [*(flag for flag in flags if not flag.startswith("--max-steps")), "--num-train-epochs=20000"]
    short, long = (planned(lorascope, *flags, "--devices=2xL4", f"--time-budget={time}") for time in ("70s", "20min"))
    assert short["total_steps"] < long["total_steps"]
    assert short["devices"]["end_seconds"] < long["devices"]["end_seconds"]
    code, out, _ = lorascope("plan", *flags, "--devices=2xL4")
    assert code == 0
    assert "On 2 devices the 2 trials" in " ".join(out.split())
    code, _, err = lorascope("plan", *flags, "--devices=2xM1")
    assert (code, "--devices names '2xM1'" in err) == (2, True)
