import pytest
import torch

from lorascope.measure.flops import ProductCounter, SavedTensors
from lorascope.measure.machine_rates import machine_rates

F32 = torch.float32.itemsize


def test_products_are_counted_with_their_operands_and_nothing_else_is() -> None:
    a, b, c = torch.ones(3, 5), torch.ones(5, 7), torch.ones(3, 7)
    with ProductCounter() as counted:
        (a @ b).exp().sum()
        c.addmm_(a, b)
        torch.bmm(a.expand(2, 3, 5), b.expand(2, 5, 7))
    assert counted.flops == 2 * 3 * 5 * 7 * (1 + 1 + 2)
    one = (3 * 5 + 5 * 7 + 3 * 7) * F32
    assert counted.bytes == one * (1 + 1 + 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_linear_layer_s_way_back_counts_too(dtype: torch.dtype) -> None:
    layer, x = torch.nn.Linear(5, 7, bias=False).to(dtype), torch.ones(3, 5, dtype=dtype, requires_grad=True)
    with ProductCounter() as counted:
        layer(x).sum().backward()
    assert counted.flops == 3 * (2 * 3 * 5 * 7)
    assert counted.bytes == 3 * (3 * 5 + 5 * 7 + 3 * 7) * dtype.itemsize


def test_what_a_pass_saves_for_its_backward_is_counted_once_and_weights_are_not() -> None:
    weight = torch.ones(10, 10, requires_grad=True)
    saved = SavedTensors([weight])
    for rows in (4, 6, 2):
        x = torch.ones(rows, 10)
        with saved.counting():
            y = x @ weight  # saves x; the weight is known
            z = y.exp() * y.exp()  # saves both results, each for itself and for the product
        saved.microbatch_ends()
        z.sum().backward()
    assert saved.largest_bytes == 6 * 10 * F32 * 3
    weight.grad = None


def test_the_machine_s_rates_are_those_of_the_work_done() -> None:
    rates = machine_rates(torch.device("cpu"), torch.float32)
    assert rates.dtype == "float32"
    assert 1e9 < rates.flops_per_second < 1e15
    assert 1e8 < rates.bytes_per_second < 1e13
