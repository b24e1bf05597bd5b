"""Training on a GPU; excluded from the project's own checks."""

from typing import Any

import numpy as np
import pytest
import torch

from lorascope.engine.verify import prepare_model
from support.groups import make_spec, run_group
from support.tiny_models import TARGETS, make_model, make_splits

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("packing", [True, False])
def test_group_has_the_same_losses_on_cuda(kind: str, packing: bool) -> None:
    spec, train = make_spec(), make_splits().train
    kept = []
    for device in ("cpu", "cuda"):
        model: Any = make_model(kind)
        frozen, _ = prepare_model(model.to(device), TARGETS[kind], train, packing=packing, kernels=True)
        assert frozen.packing == packing
        kept.append(run_group(spec, kind, frozen=frozen))
    for name in kept[0].trials:
        np.testing.assert_allclose(kept[1].losses(name), kept[0].losses(name), rtol=1e-9)
        np.testing.assert_allclose(kept[1].eval_nats(name), kept[0].eval_nats(name), rtol=1e-9)
