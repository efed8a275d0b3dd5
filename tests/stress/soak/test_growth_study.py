"""How often the verdict is right, on seeds of their own."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from stress.soak import growth_study
from stress.soak.growth import GrowthVerdict, growth_of
from stress.soak.growth_study import Cell, cell_of
from stress.soak.traces import Noise, simulated

SEED = 70_000


def mean(cells: list[Cell], figure: str) -> float:
    return float(np.mean([getattr(cell, figure) for cell in cells]))


def test_of_two_hundred_clean_traces_at_most_ten_are_called_leaking() -> None:
    cells = [cell_of(noise, hours, 0.0, 7, SEED) for noise in Noise for hours in (1.0, 2.0, 4.0, 8.0)]
    assert sum(cell.traces for cell in cells) == 196
    assert mean(cells, "leaking") <= 10 / 196
    assert mean(cells, "covered") >= 0.9
    assert mean(cells, "passed") > 0.25


def test_twenty_megabytes_an_hour_are_found_in_eight_hours_of_any_noise() -> None:
    cells = [cell_of(noise, 8.0, 20.0, 8, SEED) for noise in Noise]
    assert mean(cells, "leaking") >= 0.98
    assert mean(cells, "covered") >= 0.88
    assert mean(cells, "finds_smallest") >= 0.75


def test_shares_make_up_the_whole() -> None:
    cell = cell_of(Noise.AR_900, 1.0, 10.0, 6, SEED)
    assert cell.leaking + cell.passed + cell.undecided == pytest.approx(1.0)
    verdicts = [growth_of(simulated(Noise.AR_900, 1.0, 10.0, SEED + number)).verdict for number in range(6)]
    assert cell.undecided == verdicts.count(GrowthVerdict.UNDECIDED) / 6


def test_a_seed_is_a_trace() -> None:
    one, same, other = (simulated(Noise.ARENAS, 1.0, 5.0, seed) for seed in (1, 1, 2))
    assert np.array_equal(one.megabytes, same.megabytes)
    assert not np.array_equal(one.megabytes, other.megabytes)


def test_the_command_prints_a_table_or_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["growth_study", "--traces", "1", "--hours", "1", "--leaks", "0", "20"]
    monkeypatch.setattr(sys, "argv", asked)
    assert growth_study.main() == 0
    out, err = capsys.readouterr()
    assert "20 MB/h in 1 h" in out
    assert len(err.splitlines()) == 2 * len(Noise)
    monkeypatch.setattr(sys, "argv", [*asked, "--json"])
    growth_study.main()
    assert len(json.loads(capsys.readouterr().out)) == 2 * len(Noise)


@pytest.mark.long
@pytest.mark.parametrize("noise", Noise)
def test_each_noise_keeps_what_is_promised(noise: Noise) -> None:
    # Where workers are recycled, all warm up alike, and what is left of that looks like a slope.
    least_covered = 0.8 if noise is Noise.RECYCLED else 0.88
    for hours in (1.0, 2.0, 4.0, 8.0):
        clean = cell_of(noise, hours, 0.0, 200, SEED)
        assert clean.leaking <= 0.05
        assert clean.covered >= least_covered
    assert cell_of(noise, 8.0, 20.0, 200, SEED).leaking >= 0.95
