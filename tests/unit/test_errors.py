"""Whose fault an error is."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from lorascope.errors import UnsupportedModelError, is_own_fault
from lorascope.modeling.adapters.linear_kinds.dense import DenseKind
from lorascope.modeling.backends.torch.backend import TORCH
from lorascope.modeling.device_dtype import resolve_device
from lorascope.modeling.packing.attention import packed_attention
from lorascope.modeling.packing.current import ActiveMicroBatch, active_microbatch
from lorascope.modeling.packing.length_buckets import group_rows
from lorascope.modeling.packing.packed_layout import BASE_ONLY, MicroBatchLayout


def caught(run: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as found:  # noqa: PT011 - any
        run()
    return found.value


@pytest.mark.parametrize(
    "run",
    [
        lambda: group_rows(None, (), torch.device("cpu")),
        lambda: group_rows((1, 2), (0,), torch.device("cpu")),
        lambda: resolve_device(None),
        # Torch's own function raises, with this package's arguments
        lambda: DenseKind(nn.Linear, fan_in_fan_out=False).add_input_gradient(
            nn.Linear(2, 3), torch.ones(4, 5), torch.ones(4, 2)
        ),
    ],
)
def test_errors_of_this_package_s_code_are_its_own(run: Callable[[], object]) -> None:
    assert is_own_fault(caught(run))


@pytest.mark.parametrize(
    "run",
    [
        lambda: dict[str, int]()["key"],
        lambda: nn.Linear(2, 3)(torch.ones(5)),
        lambda: torch.ones(2) @ torch.ones(3),
        lambda: [].missing,  # type: ignore[attr-defined]
    ],
)
def test_errors_of_a_model_s_code_are_not(run: Callable[[], object]) -> None:
    assert not is_own_fault(caught(run))


def test_heads_of_other_shapes_are_the_model_s() -> None:
    q, k, v = torch.ones(1, 2, 3, 4), torch.ones(1, 2, 3, 4), torch.ones(1, 2, 3, 6)

    def attend() -> None:
        layout = MicroBatchLayout(lengths=(3,), adapters=(BASE_ONLY,), padded=True, device=torch.device("cpu"))
        with active_microbatch(ActiveMicroBatch(layout=layout, backend=TORCH)):
            packed_attention(nn.Module(), q, k, v, None)

    error = caught(attend)
    assert isinstance(error, UnsupportedModelError)
    assert not is_own_fault(error)
