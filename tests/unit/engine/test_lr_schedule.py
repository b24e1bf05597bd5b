import pytest
import torch
from transformers import get_scheduler

from lorascope.engine.lr_schedule import learning_rate_factor
from lorascope.search.steps import warmup_steps
from lorascope.spec.fields.training import Scheduler
from lorascope.spec.schema import StudySpec

TOTAL = 17
NAMES: dict[Scheduler, str] = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("warmup", [0, 1, 5, 17, 30])
@pytest.mark.parametrize("name", NAMES)
def test_lr_schedule_equals_transformers(name: Scheduler, warmup: int) -> None:
    spec = StudySpec(lr_scheduler_type=name, warmup_steps=warmup)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_scheduler(NAMES[name], optimizer, num_warmup_steps=warmup, num_training_steps=TOTAL)
    for step in range(TOTAL):
        ours = learning_rate_factor(spec, step=step, total_steps=TOTAL)
        assert ours == pytest.approx(theirs.get_last_lr()[0], rel=1e-12, abs=1e-15)
        theirs.step()


@pytest.mark.parametrize(("asked", "steps"), [(0, 0), (0.1, 2), (0.5, 9), (1, 1), (3, 3)])
def test_warmup_below_one_is_a_fraction_of_the_run(asked: float, steps: int) -> None:
    assert warmup_steps(StudySpec(warmup_steps=asked), TOTAL) == steps
