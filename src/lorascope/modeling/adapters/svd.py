"""SVD of an adapter's update: its singular values, and the best update of a smaller rank.

The update scale * B A of a layer is [O, I], far larger than its factors, and is never formed: with B = Q R and
A^T = P S, its singular values are those of the small matrix R S^T.

Shape legend: I in_features, O out_features, R rank, K at most R: as many singular values as there can be.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Update:
    """The update of one layer's weight: scale * B A."""

    A: torch.Tensor
    """[R, I]"""
    B: torch.Tensor
    """[O, R]"""
    scale: float

    def first(self, rank: int) -> "Update":
        """Keep the first ``rank`` rows of A and columns of B."""
        return Update(A=self.A[:rank], B=self.B[:, :rank], scale=self.scale)


def principal(update: Update) -> tuple[Update, torch.Tensor]:
    """Write an update so that its first k rows and columns are the best update of rank k, for every k.

    That is the truncated singular value decomposition, nearest in the Frobenius and the spectral norm (Eckart and
    Young 1936, Psychometrika 1, 211-218). Each factor gets the square root of a singular value, so that both are of
    one size.

    Returns:
        The update with a scale of 1, its factors [R, I] and [O, R] in the dtype they had, zero beyond K; and the
        singular values [K], descending, in float64.
    """
    with _one_thread():
        return _principal(update)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute in one thread: two are no faster here, and far slower where another program takes a core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _principal(update: Update) -> tuple[Update, torch.Tensor]:
    rank = len(update.A)
    Q_OK, R_B = torch.linalg.qr(update.B.to(torch.float64))
    P_IK, R_A = torch.linalg.qr(update.A.to(torch.float64).T)
    U, singular_K, Vh = torch.linalg.svd(update.scale * (R_B @ R_A.T), full_matrices=False)
    root_K, n_values = singular_K.sqrt(), len(singular_K)
    A, B = torch.zeros_like(update.A), torch.zeros_like(update.B)
    A[:n_values] = (root_K[:, None] * (Vh @ P_IK.T)).to(A.dtype)
    B[:, :n_values] = (Q_OK @ U * root_K).to(B.dtype)
    assert n_values <= rank
    return Update(A=A, B=B, scale=1.0), singular_K


def principal_updates(updates: Mapping[str, Update]) -> dict[str, Update]:
    """Write the update of every layer in its principal factors, which truncate to any smaller rank."""
    return {layer: principal(update)[0] for layer, update in updates.items()}
