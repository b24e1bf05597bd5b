import pytest
import torch

from lorascope.errors import InputError
from lorascope.message import Message
from lorascope.modeling import device_dtype as precision
from lorascope.modeling.device_dtype import choose_dtype, resolve_device
from lorascope.text.say import say
from support.messages import ASKED

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("float32_seconds", "bfloat16_seconds", "chosen", "reason"),
    [
        (3.0, 1.0, torch.bfloat16, "3.0 times as fast"),
        (1.21, 1.0, torch.bfloat16, "1.2 times as fast"),
        (1.1, 1.0, torch.float32, "only 1.1 times"),
        (1.0, 4.0, torch.float32, "only 0.2 times"),
    ],
)
def test_auto_dtype_is_bfloat16_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, float32_seconds: float, bfloat16_seconds: float, chosen: torch.dtype, reason: str
) -> None:
    seconds = {torch.float32: float32_seconds, torch.bfloat16: bfloat16_seconds}
    monkeypatch.setattr(precision, "supports_bfloat16_matmul", lambda: False)
    monkeypatch.setattr(precision, "_product_seconds", seconds.__getitem__)
    dtype, why = choose_dtype("auto", CPU)
    assert dtype == chosen
    assert reason in say(why)


def test_auto_dtype_ignores_a_busy_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "supports_bfloat16_matmul", lambda: True)
    monkeypatch.setattr(precision, "_product_seconds", {torch.float32: 1.0, torch.bfloat16: 4.0}.__getitem__)
    dtype, why = choose_dtype("auto", CPU)
    assert dtype == torch.bfloat16
    assert why == Message("dtype.cpu_instructions")


def test_auto_dtype_measures_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "supports_bfloat16_matmul", lambda: False)
    dtype, why = choose_dtype("auto", CPU)
    assert dtype in {torch.float32, torch.bfloat16}
    assert why.code in {"dtype.cpu_faster", "dtype.cpu_slower"}


@pytest.mark.parametrize("name", ["float32", "float64", "bfloat16"])
def test_explicit_dtype_is_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_product_seconds", lambda dtype: 1 / 0)
    assert choose_dtype(name, CPU) == (getattr(torch, name), ASKED)


@pytest.mark.parametrize("supported", [True, False])
def test_auto_dtype_asks_the_gpu(monkeypatch: pytest.MonkeyPatch, supported: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    dtype, why = choose_dtype("auto", torch.device("cuda"))
    assert dtype == (torch.bfloat16 if supported else torch.float32)
    assert why == Message("dtype.gpu_bfloat16" if supported else "dtype.gpu_float32")


def test_device_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("cpu") == CPU
    for available, kind in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        assert resolve_device("auto").type == kind
    for name in ("tpu9", "", "meta", "cpu:x", "mps"):
        with pytest.raises(InputError, match="cannot be used"):
            resolve_device(name)


@pytest.mark.parametrize("name", ["mps", "mps:0"])
def test_device_mps_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "device", lambda _: 1 / 0)  # neither asked for nor touched
    with pytest.raises(InputError) as caught:
        resolve_device(name)
    assert caught.value.problem == f"device {name!r} cannot be used: only cpu and cuda devices are supported"
    assert caught.value.remedy == "use --device cpu"
