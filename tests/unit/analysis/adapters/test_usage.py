"""Numbers of an adapter's use, by hand."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lorascope.analysis import StudySummary, load_study, summarize
from lorascope.analysis.adapters.usage import effective_rank, energy_rank
from lorascope.charts.plots.effective_rank import use_by_layer, use_by_layer_spec
from lorascope.charts.plots.truncated_loss import truncation_curve, truncation_spec
from lorascope.records import BASE_MODEL, EvalRecord, ForgettingRecord, SpectrumRecord, TruncationRecord
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore

MakeStudy = Callable[..., Path]


def test_effective_rank_by_hand() -> None:
    assert effective_rank((5.0,)) == pytest.approx(1.0)
    assert effective_rank((2.0,) * 7) == pytest.approx(7.0)
    assert effective_rank((3.0, 0.0, 0.0)) == pytest.approx(1.0)
    # shares 1/2, 1/3, 1/6
    entropy = math.log(2) / 2 + math.log(3) / 3 + math.log(6) / 6
    assert effective_rank((3.0, 2.0, 1.0)) == pytest.approx(math.exp(entropy), rel=1e-14)
    assert effective_rank((30.0, 20.0, 10.0)) == pytest.approx(math.exp(entropy), rel=1e-14)
    assert effective_rank((0.0, 0.0)) == 0.0


def test_energy_rank_by_hand() -> None:
    values = (4.0, 2.0, 2.0, 1.0)  # squares 16, 4, 4, 1 of 25
    assert [energy_rank(values, share) for share in (0.5, 0.64, 0.65, 0.8, 0.96, 0.97, 1.0)] == [1, 1, 2, 2, 3, 4, 4]
    assert energy_rank((0.0, 0.0), 0.5) == 0


def spectrum(trial: str, layer: str, *values: float) -> SpectrumRecord:
    return SpectrumRecord(trial_id=trial, layer=layer, singular_values=values)


def cut_of(nats: np.ndarray, rank: int, extra: float, noise: float = 0.0) -> TruncationRecord:
    shifts = extra + noise * np.random.default_rng(rank).normal(size=len(nats))
    return TruncationRecord(
        trial_id="r16", rank=rank, example_nats=tuple((nats + 20 * shifts).tolist()),
        example_target_tokens=(20,) * len(nats), seconds=1.0,
    )  # fmt: skip


def forgotten(trial: str, nats: tuple[float, ...], text_hash: str = "h") -> ForgettingRecord:
    return ForgettingRecord(
        trial_id=trial, text="own.txt", text_hash=text_hash, window_nats=nats,
        window_target_tokens=(10,) * len(nats), seconds=1.0,
    )  # fmt: skip


@pytest.fixture
def study(make_study: MakeStudy) -> Path:
    """Two ranks; rank 16 cut to 1, 2, 4 and 8; two kinds of modules in two layers."""
    folder = make_study(floors={4: 1.3, 16: 1.2})
    with StudyStore.create(folder / "study.db") as store:
        whole = np.array(store.read(EvalRecord, trial_id="r16")[-1].example_nats)
        cuts = ((1, 0.3, 0.0), (2, 0.004, 0.1), (4, 0.004, 0.001), (8, 0.001, 0.001))
        for rank, extra, noise in cuts:
            store.put(cut_of(whole, rank, extra, noise))
        for trial in ("r4", "r16"):
            store.put_all(
                [
                    spectrum(trial, "0.q_proj", 1.0, 1.0),
                    spectrum(trial, "0.v_proj", 3.0, 0.0),
                    spectrum(trial, "1.q_proj", 1.0, 1.0, 1.0, 1.0),
                    spectrum(trial, "1.v_proj", 2.0, 2.0),
                ]
            )
        store.put(forgotten(BASE_MODEL, (20.0, 30.0, 40.0)))
        store.put(forgotten("r4", (21.0, 31.0, 41.0)))
        store.put(forgotten("r16", (20.0, 30.0, 41.5), "another text"))
    return folder


def test_spectra_are_averaged_over_layers_of_a_kind(study: Path) -> None:
    parts = summarize(study).spectra
    assert [(part.rank, part.module) for part in parts] == [
        (4, "q_proj"),
        (4, "v_proj"),
        (16, "q_proj"),
        (16, "v_proj"),
    ]
    queries, values = parts[0], parts[1]
    assert (queries.layers, queries.effective_rank) == (2, pytest.approx(3.0))
    assert (queries.effective_rank_min, queries.effective_rank_max) == (pytest.approx(2.0), pytest.approx(4.0))
    assert (queries.energy_rank_50, queries.energy_rank_90, queries.energy_rank_99) == (1.5, 3.0, 3.0)
    assert (values.effective_rank, values.energy_rank_99) == (pytest.approx(1.5), 1.5)


def test_truncations_are_compared_on_the_same_rows(study: Path) -> None:
    summary = summarize(study)
    part = summary.truncation
    assert (part.trial_id, part.rank, part.eval_loss) == ("r16", 16, summary.ranks[1].eval_loss)
    assert [cut.rank for cut in part.cuts] == [1, 2, 4, 8]
    assert part.cuts[0].excess_loss == pytest.approx(0.3, abs=1e-12)
    assert part.cuts[0].excess_loss_ci95 == pytest.approx((0.3, 0.3), abs=1e-9)
    low, high = part.cuts[1].excess_loss_ci95
    assert high - low == pytest.approx(2 * 1.96 * 0.1 / math.sqrt(200), rel=0.2)
    assert [cut.trained_eval_loss for cut in part.cuts] == [None, None, summary.ranks[0].eval_loss, None]
    # 2 is close to the whole but not shown to be; 4 is, and so is what is larger
    assert part.adequate_rank == 4


def test_truncation_is_adequate_only_if_larger_ones_are(study: Path) -> None:
    with StudyStore.create(study / "study.db") as store:
        whole = np.array(store.read(EvalRecord, trial_id="r16")[-1].example_nats)
        store.put(cut_of(whole, 8, 0.2))
    assert summarize(study).truncation.adequate_rank is None


def test_truncation_without_a_finite_loss(study: Path) -> None:
    with StudyStore.create(study / "study.db") as store:
        store.put(cut_of(np.full(200, math.nan), 1, 0.0))
    cut = summarize(study).truncation.cuts[0]
    assert (cut.eval_loss, cut.excess_loss, cut.excess_loss_ci95) == (None, None, None)


def test_forgetting_is_the_change_of_loss_on_the_same_text(study: Path) -> None:
    summary = summarize(study)
    part = summary.ranks[0].forgetting
    assert (part.before, part.after) == (3.0, pytest.approx(3.1))
    assert part.change == pytest.approx(0.1)
    assert part.change_ci95 == pytest.approx((0.1, 0.1))
    assert summary.ranks[1].forgetting is None, "its text was another"
    text = summary.generic_text
    assert (text.name, text.windows, text.target_tokens, text.text_hash) == ("own.txt", 3, 30, "h")


def test_adapter_analysis_uses_the_best_learning_rate(make_study: MakeStudy) -> None:
    folder = make_study(spec=StudySpec(ranks=(16,), learning_rates=(3e-4, 3e-2)), floors={16: 1.2})
    with StudyStore.create(folder / "study.db") as store:
        store.put(spectrum("r16-lr0.03", "0.q_proj", 1.0))
    assert summarize(folder).spectra == ()
    with StudyStore.create(folder / "study.db") as store:
        store.put(spectrum("r16-lr0.0003", "0.q_proj", 1.0, 1.0))
    assert [part.effective_rank for part in summarize(folder).spectra] == [pytest.approx(2.0)]


def test_study_without_post_training_has_no_adapter_analysis(make_study: MakeStudy) -> None:
    summary: StudySummary = summarize(make_study())
    assert (summary.spectra, summary.truncation, summary.generic_text) == ((), None, None)
    assert truncation_curve(summary) is None


def test_adapter_charts_show_the_summary(study: Path) -> None:
    data, summary = load_study(study), summarize(study)
    curve = truncation_curve(summary)
    assert curve.cuts == (
        *((cut.rank, cut.eval_loss) for cut in summary.truncation.cuts), (16, summary.ranks[1].eval_loss)
    )  # fmt: skip
    assert curve.trained == ((4, summary.ranks[0].eval_loss), (16, summary.ranks[1].eval_loss))
    use = use_by_layer(data, summary)
    assert (use.top, [kind for kind, _ in use.kinds]) == (16, ["q_proj", "v_proj"])
    assert use.kinds[0][1] == pytest.approx((2.0, 4.0))
    cuts, layers = truncation_spec(curve, data.ranks), use_by_layer_spec(use)
    assert cuts["layer"][0]["encoding"]["x"]["scale"]["type"] == "log"
    assert cuts["layer"][0]["encoding"]["y"]["title"] == "held-out loss (nats/token)"
    assert len(layers["layer"][0]["data"]["values"] if "data" in layers["layer"][0] else layers["data"]["values"]) == 4
