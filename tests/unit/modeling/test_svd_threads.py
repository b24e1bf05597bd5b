"""Singular values are computed in one thread, and the number of threads is as before afterwards."""

import pytest
import torch

from lorascope.modeling.adapters.svd import Update, principal


def test_singular_values_take_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = torch.linalg.svd

    def watched(*given: torch.Tensor, **options: bool) -> object:
        seen.append(torch.get_num_threads())
        return real(*given, **options)

    monkeypatch.setattr(torch.linalg, "svd", watched)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        principal(Update(A=torch.ones(2, 4), B=torch.ones(3, 2), scale=1.0))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [1]
