"""An adapter is pushed by the hub's real client, in a process of its own, to a hub on loopback."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from lorascope.report import write_report
from support.hub import Hub, hub_on_loopback
from support.studies import execute, study_of

Lorascope = Callable[..., tuple[int, str, str]]
BASE = "someone/tiny-base"


@pytest.fixture(scope="module")
def study(model_folders: Mapping[str, str], rows_file: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pushed") / "study"
    execute(study_of(model_folders["llama"], rows_file, max_steps=2, eval_steps=2, kernels=False), folder)
    write_report(folder)
    return folder


@pytest.fixture
def hub() -> Iterator[Hub]:
    with hub_on_loopback() as hub:
        yield hub


def push(study: Path, hub: Hub, *arguments: str, **variables: str) -> tuple[int, str, str]:
    environment = os.environ | {
        "HF_ENDPOINT": hub.address, "HF_TOKEN": hub.token, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
    } | variables  # fmt: skip
    program = "import sys; from lorascope.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", program, "push", str(study), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.strip(), done.stderr


def test_pushed_adapter_has_a_card_and_the_report(study: Path, hub: Hub) -> None:
    hub.failures = [503]  # the client tries again
    code, address, errors = push(study, hub, "me/tiny-lora", "--rank", "4", "--private", "--base-model", BASE)
    assert (code, address) == (0, f"{hub.address}/me/tiny-lora"), errors
    repository = hub.repositories["me/tiny-lora"]
    assert repository.private
    assert repository.commits == ["LoRA adapter of rank 4"]
    files = repository.files
    assert set(files) - {".gitattributes"} == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "report.html", "summary.json",
    }  # fmt: skip
    adapter = study / "adapters" / "r4"
    assert files["adapter_model.safetensors"] == (adapter / "adapter_model.safetensors").read_bytes()
    assert files["report.html"] == (study / "report.html").read_bytes()
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert json.loads(files["adapter_config.json"]) == {**config, "base_model_name_or_path": BASE}
    card, part = ModelCard(files["README.md"].decode()), json.loads((study / "summary.json").read_text())["ranks"][1]
    data = card.data.to_dict()
    assert (data["base_model"], data["library_name"], "license" in data) == (BASE, "peft", False)
    metric = data["model-index"][0]["results"][0]["metrics"][0]
    assert (metric["type"], metric["value"]) == ("loss", part["eval_loss"])
    assert metric["args"] == {"interval_95": part["eval_loss_ci95"]}
    for text in ("| rank | 4 |", "| alpha | 16 ", f'from_pretrained("{BASE}")', "lorascope run", "## Licence"):
        assert text in card.text
    code, _, errors = push(study, hub, "me/tiny-lora", "--rank", "2", "--base-model", BASE)
    assert (code, repository.commits[1:]) == (0, ["LoRA adapter of rank 2"]), errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("me/x", "--rank", "4"), "not one of the hub"),
        (("me/x", "--rank", "3", "--base-model", BASE), "no rank 3"),
        (("no name", "--rank", "4", "--base-model", BASE), "cannot be the name of a repository"),
        (("x", "--rank", "4", "--base-model", BASE), "cannot be the name of a repository"),
    ],
)
def test_bad_input_is_one_message(study: Path, lorascope: Lorascope, arguments: tuple[str, ...], said: str) -> None:
    code, _, errors = lorascope("push", study, *arguments)
    assert (code, said in errors) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        (("other/x", "--rank", "4", "--base-model", BASE), {}, "you may not write to other/x"),
        (("me/x", "--rank", "4", "--base-model", BASE), {"HF_TOKEN": "hf_wrong"}, "the hub wants to know who you are"),
        (("me/x", "--rank", "4", "--base-model", BASE), {"HF_HUB_OFFLINE": "1"}, "switched off"),
    ],
)
def test_what_the_hub_refuses_is_one_message(
    study: Path, hub: Hub, arguments: tuple[str, ...], variables: dict[str, str], said: str
) -> None:
    code, _, errors = push(study, hub, *arguments, **variables)
    assert (code, said in errors, "Traceback" in errors) == (2, True, False), errors
    assert not any(repository.files for repository in hub.repositories.values())


def test_hub_that_is_not_there_is_said(study: Path, hub: Hub) -> None:
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    code, _, errors = push(study, hub, "me/x", "--rank", "4", "--base-model", BASE, **nowhere)
    assert (code, "the hub cannot be reached" in errors, "Traceback" in errors) == (1, True, False), errors
