"""What an audit measured of an adapter, made up."""

import numpy as np

from lorascope.analysis.adapters.audit import ADAPTER, AuditRecords
from lorascope.records import BASE_MODEL, ForgettingRecord, SampleAnswer, SamplePrompt, SpectrumRecord
from support.messages import verbatim

BASE_LOSS, LOSS = 2.0, 1.5


def audit_records(
    excess: dict[int, float], *, rank: int = 16, rows: int = 100, loss: float = LOSS, spread: float = 0.02
) -> AuditRecords:
    """Losses of 10 tokens a row: the base, the adapter, and its cuts with this excess over the whole, with some noise.

    Rows differ by far more than the cuts do, which are paired with them.
    """
    rng = np.random.default_rng(7)
    of_rows = rng.normal(0, 0.5, rows)

    def nats(mean: float) -> tuple[float, ...]:
        noise = rng.normal(0, spread, rows)
        return tuple((10 * (mean + of_rows + noise - noise.mean())).tolist())

    return AuditRecords(
        adapter="my/adapter",
        model="a/model",
        dataset="rows.json",
        rank=rank,
        layers=4,
        parameters=12_345,
        tolerance=0.005,
        target_tokens=(10,) * rows,
        nats={0: nats(BASE_LOSS), rank: nats(loss), **{cut: nats(loss + more) for cut, more in excess.items()}},
        spectra=[
            SpectrumRecord(trial_id=ADAPTER, layer=f"layers.{place}.{kind}", singular_values=(2.0, 1.0, 0.0))
            for place in range(2)
            for kind in ("q_proj", "down_proj")
        ],
        forgetting={
            name: ForgettingRecord(
                trial_id=name, text="builtin:python-reference", text_hash="1", window_nats=(30.0 + more, 20.0, 25.0),
                window_target_tokens=(10, 10, 10), seconds=0.0,
            )
            for name, more in ((BASE_MODEL, 0.0), (ADAPTER, 1.0))
        },
        prompts=[
            SamplePrompt(place=1, row=5, prompt="a prompt\n" * 30, truth="yes", prompt_tokens=3, truth_tokens=1,
                         continued=False)
        ],
        answers=[answer(BASE_MODEL, "no " * 60), answer(ADAPTER, "yes")],
        notes=(verbatim("a note"),),
    )  # fmt: skip


def answer(trial_id: str, text: str) -> SampleAnswer:
    return SampleAnswer(
        trial_id=trial_id, place=1, text=text, tokens=1, ended=True, max_new_tokens=8, temperature=0.0, seconds=0.0,
        error=None,
    )  # fmt: skip
