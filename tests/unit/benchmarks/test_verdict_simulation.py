"""A short version of the verdict simulation: summaries of studies with a known truth."""

from dataclasses import replace
from pathlib import Path

import pytest

import verdict_simulation
from interval_rules import CHOSEN, RULES, extremes
from made_up_studies import Truth, studies
from verdict_simulation import Score, score, truth_of

STUDIES = 200


@pytest.fixture(scope="module")
def scored() -> dict[str, Score]:
    return {
        "none, one seed": score("short", truth_of(0.0, 1, 100), STUDIES),
        "none, three seeds": score("short", truth_of(0.0, 3, 100), STUDIES),
        "0.05, three seeds": score("short", truth_of(0.05, 3, 100), STUDIES),
    }


@pytest.mark.parametrize("name", ["none, one seed", "none, three seeds", "0.05, three seeds"])
def test_simulated_intervals_cover_the_truth(scored: dict[str, Score], name: str) -> None:
    assert 0.92 <= scored[name].excess_covered <= 0.99
    assert 0.92 <= scored[name].loss_covered <= 0.99


def test_simulated_null_rarely_finds_an_effect(scored: dict[str, Score]) -> None:
    none = scored["none, three seeds"]
    assert none.matters == none.false_worse <= 0.08
    assert none.false_inadequate <= 0.05


def test_simulated_single_seed_claims_no_effect(scored: dict[str, Score]) -> None:
    assert scored["none, one seed"].matters == 0


def test_simulated_large_effect_is_found(scored: dict[str, Score]) -> None:
    large = scored["0.05, three seeds"]
    assert large.matters > 0.9
    assert large.false_adequate <= 0.05


def test_simulated_study_has_the_given_variances(scored: dict[str, Score]) -> None:
    """Without noise the losses are the floors, the costs of rates are where they should be, and studies come again."""
    silent = Truth(
        floors={8: 1.02, 64: 1.0}, seeds=2, rows=60, seed=0, seed_of_rank=0, seed_of_rate=0, row_of_rank=0,
        row_of_trial=0,
    )  # fmt: skip
    (study,) = studies(silent, 1, 5)
    (again,) = studies(silent, 1, 5)
    assert study.data.evaluations == again.data.evaluations
    (noisy,) = studies(replace(silent, seed_of_rank=0.01), 1, 5)
    assert study.data.evaluations != noisy.data.evaluations
    last = {name: records[-1] for name, records in study.data.evaluations.items()}
    tokens = last["r8-lr0.0003"].example_target_tokens
    gaps = {
        (a, b): sum(x - y for x, y in zip(last[a].example_nats, last[b].example_nats, strict=True)) / sum(tokens)
        for a, b in (("r8-lr0.0003", "r64-lr0.0003"), ("r8-lr0.0001-s1", "r8-lr0.0003-s1"))
    }
    assert list(gaps.values()) == pytest.approx([0.02, 0.02], abs=1e-12)
    assert study.floors == {8: 1.02, 64: 1.0}


def test_degrees_of_freedom_rule_covers() -> None:
    rule = RULES[CHOSEN]
    for f in (2, 4, 10):
        lowest, highest = extremes(rule, f, shares=(0.0, 0.9), added=(0.0, 0.3, 1.0, 3.0, 10.0, 100.0))
        assert 0.93 <= lowest <= highest <= 0.97


def test_simulation_writes_every_scenario_to_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verdict_simulation, "RESULT", tmp_path / "result.json")
    for names in ("two-ranks-s2", "effect-0-s1-n100"):
        monkeypatch.setattr("sys.argv", ["verdict_simulation.py", "--studies", "3", "--scenarios", names])
        verdict_simulation.main()
    table = capsys.readouterr().out.strip().splitlines()[-3:-1]
    assert [line.split(" | ")[0] for line in table] == ["| effect-0-s1-n100", "| two-ranks-s2"]
