import pytest
import torch

from lorascope.measure.flops import MatmulCounter, SavedTensorCounter
from lorascope.measure.machine_rates import machine_rates

F32 = torch.float32.itemsize


def test_matmul_counter_counts_products_only() -> None:
    a, b, c = torch.ones(3, 5), torch.ones(5, 7), torch.ones(3, 7)
    with MatmulCounter() as counted:
        (a @ b).exp().sum()
        c.addmm_(a, b)
        torch.bmm(a.expand(2, 3, 5), b.expand(2, 5, 7))
    assert counted.flops == 2 * 3 * 5 * 7 * (1 + 1 + 2)
    one = (3 * 5 + 5 * 7 + 3 * 7) * F32
    assert counted.bytes == one * (1 + 1 + 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_matmul_counter_counts_the_backward_of_a_linear_layer(dtype: torch.dtype) -> None:
    layer, x = torch.nn.Linear(5, 7, bias=False).to(dtype), torch.ones(3, 5, dtype=dtype, requires_grad=True)
    with MatmulCounter() as counted:
        layer(x).sum().backward()
    assert counted.flops == 3 * (2 * 3 * 5 * 7)
    assert counted.bytes == 3 * (3 * 5 + 5 * 7 + 3 * 7) * dtype.itemsize


def test_saved_tensors_are_counted_once_without_weights() -> None:
    weight = torch.ones(10, 10, requires_grad=True)
    saved = SavedTensorCounter([weight])
    for rows in (4, 6, 2):
        x = torch.ones(rows, 10)
        with saved.counting():
            y = x @ weight  # saves x; the weight is known
            z = y.exp() * y.exp()  # saves both results, each for itself and for the product
        saved.microbatch_ends()
        z.sum().backward()
    assert saved.largest_bytes == 6 * 10 * F32 * 3
    weight.grad = None


def test_machine_rates_follow_the_timed_work() -> None:
    rates = machine_rates(torch.device("cpu"), torch.float32)
    assert rates.dtype == "float32"
    assert 1e9 < rates.flops_per_second < 1e15
    assert 1e8 < rates.bytes_per_second < 1e13
