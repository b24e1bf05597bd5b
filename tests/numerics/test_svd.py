"""SVD of an update that is never formed, against the SVD of the update itself."""

import pytest
import torch

from lorascope.modeling.adapters.svd import Update, principal

SHAPES = [(24, 40, 8), (40, 24, 8), (12, 40, 16), (40, 12, 16), (9, 9, 9), (5, 7, 1)]
"""(out, in, rank), ranks above the smaller side included."""


def random_update(n_out: int, n_in: int, rank: int, dtype: torch.dtype = torch.float64) -> Update:
    generator = torch.Generator().manual_seed(n_out * 100 + rank)
    A = torch.randn(rank, n_in, generator=generator, dtype=torch.float64).to(dtype)
    B = torch.randn(n_out, rank, generator=generator, dtype=torch.float64).to(dtype)
    return Update(A=A, B=B, scale=0.7)


def dense(update: Update) -> torch.Tensor:
    return update.scale * update.B @ update.A


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_svd_truncations_equal_the_dense_decomposition(shape: tuple[int, int, int]) -> None:
    update = random_update(*shape)
    U, expected, Vh = torch.linalg.svd(dense(update), full_matrices=False)
    whole, found = principal(update)
    n_values = min(shape)
    assert len(found) == n_values
    torch.testing.assert_close(found, expected[:n_values], rtol=1e-10, atol=1e-10)
    assert (whole.A.shape, whole.B.shape, whole.scale) == (update.A.shape, update.B.shape, 1.0)
    for rank in range(1, shape[2] + 1):
        best = (U[:, :rank] * expected[:rank]) @ Vh[:rank]
        cut = whole.first(rank)
        assert (len(cut.A), cut.B.shape[1]) == (rank, rank)
        torch.testing.assert_close(dense(cut), best, rtol=1e-10, atol=1e-10)


def test_svd_of_a_float32_adapter_keeps_its_precision() -> None:
    update = random_update(24, 40, 8, torch.float32)
    whole, _ = principal(update)
    assert whole.A.dtype == whole.B.dtype == torch.float32
    wanted = update.scale * update.B.double() @ update.A.double()
    error = torch.linalg.norm(whole.B.double() @ whole.A.double() - wanted) / torch.linalg.norm(wanted)
    assert error < 2e-7


def test_svd_of_a_known_update() -> None:
    """B A is diag(8, 4, 2) on three of the axes, in another order; the scale halves it."""
    A = torch.zeros(3, 5, dtype=torch.float64)
    B = torch.zeros(4, 3, dtype=torch.float64)
    A[0, 1], A[1, 4], A[2, 0] = 2.0, 1.0, 4.0
    B[2, 0], B[0, 1], B[3, 2] = 1.0, 8.0, 1.0
    whole, values = principal(Update(A=A, B=B, scale=0.5))
    assert values.tolist() == pytest.approx([4.0, 2.0, 1.0], rel=1e-14)
    expected = torch.zeros(4, 5, dtype=torch.float64)
    expected[0, 4] = 4.0
    torch.testing.assert_close(dense(whole.first(1)), expected, rtol=0, atol=1e-14)
    expected[3, 0] = 2.0
    torch.testing.assert_close(dense(whole.first(2)), expected, rtol=0, atol=1e-14)


def test_svd_of_a_zero_update_has_no_directions() -> None:
    whole, values = principal(Update(A=torch.randn(4, 6), B=torch.zeros(5, 4), scale=2.0))
    assert values.tolist() == [0.0] * 4
    assert torch.equal(dense(whole), torch.zeros(5, 6))
