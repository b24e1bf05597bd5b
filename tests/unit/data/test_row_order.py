import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorascope.data.row_order import epoch_order, step_rows, total_steps
from lorascope.spec.schema import StudySpec

FIRST_ORDER = [3, 2, 1, 6, 0, 7, 4, 5]


specs = st.builds(
    StudySpec,
    per_device_train_batch_size=st.integers(1, 5),
    gradient_accumulation_steps=st.integers(1, 4),
    num_train_epochs=st.sampled_from([0.3, 1.0, 1.5, 3.0]),
)


@given(spec=specs, n_train=st.integers(1, 40), seed=st.integers(0, 5))
def test_each_epoch_of_steps_is_that_epochs_order_in_chunks(spec: StudySpec, n_train: int, seed: int) -> None:
    steps_per_epoch = total_steps(spec.model_copy(update={"num_train_epochs": 1.0}), n_train)
    for epoch in range(2):
        steps = [
            step_rows(spec, n_train, seed=seed, step=epoch * steps_per_epoch + step) for step in range(steps_per_epoch)
        ]
        size = spec.per_device_train_batch_size * spec.gradient_accumulation_steps
        assert [row for step in steps for row in step] == epoch_order(n_train, seed=seed, epoch=epoch).tolist()
        assert all(len(step) == size for step in steps[:-1])
        assert 1 <= len(steps[-1]) <= size


@pytest.mark.parametrize(
    ("n_train", "batch", "accumulation", "epochs", "expected"),
    [
        (10, 4, 1, 1.0, 3),
        (10, 4, 2, 1.0, 2),
        (10, 4, 1, 1.5, 5),
        (10, 4, 2, 0.1, 1),
        (16, 4, 2, 3.0, 6),
        (3, 8, 1, 2.0, 2),
    ],
)
def test_steps_are_counted_as_trainer_counts_them(
    n_train: int, batch: int, accumulation: int, epochs: float, expected: int
) -> None:
    spec = StudySpec(
        per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation, num_train_epochs=epochs
    )
    assert total_steps(spec, n_train) == expected


def test_max_steps_overrides_epochs() -> None:
    assert total_steps(StudySpec(max_steps=7, num_train_epochs=100), 10) == 7


@given(n=st.integers(1, 200), seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 100))
def test_an_epochs_order_is_a_permutation(n: int, seed: int, epoch: int) -> None:
    order = epoch_order(n, seed=seed, epoch=epoch)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(n))


def test_order_depends_on_seed_and_epoch_and_never_changes() -> None:
    assert epoch_order(8, seed=0, epoch=0).tolist() == FIRST_ORDER
    assert epoch_order(8, seed=0, epoch=1).tolist() != FIRST_ORDER
    assert epoch_order(8, seed=1, epoch=0).tolist() != FIRST_ORDER


def test_importing_row_order_loads_no_heavy_library() -> None:
    code = "import sys, lorascope.data.row_order; print({'torch', 'transformers', 'datasets'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
