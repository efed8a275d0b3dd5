"""Configuration from TOML: what it leaves out keeps its default, what it misspells is named."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from data.errors import OptionError
from regime.signal import Level
from sage.config import BacktestConfig, as_dict, load_config, validate


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(text)
    return path


def test_values_land_where_they_belong(tmp_path: Path) -> None:
    config = load_config(
        written(
            tmp_path,
            "cash = 5000\n[regime]\nhorizon_bars = 8\npinned_level = 2\n[regime.calibration]\nmiscoverage = 0.2\n"
            "[sizing]\nmax_exposure = 0.5\n",
        )
    )
    assert config.cash == 5000.0
    assert config.regime.horizon_bars == 8
    assert config.regime.pinned_level is Level.SMART
    assert config.regime.calibration.miscoverage == 0.2
    assert config.sizing.max_exposure == 0.5
    assert config.costs == BacktestConfig().costs


def test_an_unknown_key_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"sizing.max_exposur.*max_exposure"):
        load_config(written(tmp_path, "[sizing]\nmax_exposur = 1.0\n"))


@pytest.mark.parametrize(
    "text",
    ["cash = 'much'\n", "[regime]\nhorizon_bars = 1.5\n", "sizing = 3\n", "cash = \n", "[regime]\npinned_level = 9\n"],
)
def test_wrong_types_and_broken_files_are_usage_errors(tmp_path: Path, text: str) -> None:
    with pytest.raises(OptionError, match=r"run\.toml"):
        load_config(written(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"nowhere\.toml"):
        load_config(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("", "cash", 0.0),
        ("", "cash", math.nan),
        ("", "cash", 1e30),
        ("", "seed", -1),
        ("costs", "fee_bps", -1.0),
        ("costs", "fee_bps", math.nan),
        ("costs", "latency_ms", math.inf),
        ("costs", "latency_ms", 1e15),
        ("costs", "latency_ms", -5.0),
        ("costs", "spread_bps", -1.0),
        ("costs", "slippage_bps", math.nan),
        ("costs", "funding_bps_8h", 1e4),
        ("costs", "borrow_bps_year", -1.0),
        ("costs", "participation", 1.5),
        ("walk_forward", "fold_bars", 5),
        ("regime", "deadline_ms", 2.0),
        ("regime", "horizon_bars", 0),
        ("sizing", "max_exposure", 0.0),
        ("sizing", "target_volatility", 0.0),
        ("sizing", "full_size_uncertainty", 1.0),
        ("sizing", "brake_factor", 0.0),
        ("sizing", "emergency_flatten_bars", 0),
        ("sizing", "degrade_hold_bars", -1),
        ("ensemble", "vote_limit_ms", -1.0),
        ("watch", "memory_share", 1.0),
        ("watch", "gpu_share", 0.0),
        ("watch", "degraded_bars", 0),
        ("watch", "cool_down_s", -1.0),
        ("watch", "raise_after_s", math.nan),
    ],
)
def test_numbers_that_make_no_sense_are_refused(part: str, field: str, value: float) -> None:
    config = BacktestConfig()
    if part:
        changed = dataclasses.replace(getattr(config, part), **{field: value})
        config = dataclasses.replace(config, **{part: changed})
    else:
        config = dataclasses.replace(config, **{field: value})
    with pytest.raises(OptionError, match=field):
        validate(config)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[sizing]\nbrake_drawdown = 0.1\nrelease_drawdown = 0.1\n", r"release_drawdown \(0.1\).*below brake_drawdown"),
        ("[sizing]\nmax_exposure = 0.1\n", r"rebalance_band \(0.1\) must be below max_exposure \(0.1\)"),
        (
            "[ensemble.weights]\nfloor = 0.25\n",
            r"floor of 0.25 for each of 5 alphas is more than there is: at most 0.2",
        ),
        ('[ensemble]\nalphas = ["trend", "carry"]\n', "no alpha carry; there are forecast"),
        ('[ensemble]\nalphas = ["trend", "trend"]\n', "names one twice"),
        ("[ensemble]\nalphas = []\n", "one alpha is needed"),
        ("[data.synthetic]\nseed = 3\n", r"data\.synthetic\.seed: .* at the top level"),
    ],
)
def test_limits_that_contradict_each_other_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        validate(load_config(written(tmp_path, text)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"minimum_calls": 30}, "minimum_calls"),
        ({"failure_rate": 0.0}, "rates"),
        ({"slow_share": 1.5}, "slow_share"),
        ({"probes": 0}, "probes"),
    ],
)
def test_a_breaker_that_makes_no_sense_is_refused(changes: dict[str, float], said: str) -> None:
    config = BacktestConfig()
    breaker = dataclasses.replace(config.regime.breaker, **changes)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=said):
        validate(dataclasses.replace(config, regime=dataclasses.replace(config.regime, breaker=breaker)))


@pytest.mark.parametrize(
    ("field", "value"), [("back_off_s", 61.0), ("silence_limit_s", 0.0), ("watch_s", -1.0), ("recycle_share", 0.0)]
)
def test_serving_that_makes_no_sense_is_refused(field: str, value: float) -> None:
    config = BacktestConfig()
    with pytest.raises(OptionError, match=field):
        validate(dataclasses.replace(config, serving=dataclasses.replace(config.serving, **{field: value})))  # type: ignore[arg-type]


def test_the_defaults_make_sense() -> None:
    validate(BacktestConfig())


def test_a_configuration_from_a_file_is_written_out_whole(tmp_path: Path) -> None:
    written_out = as_dict(load_config(written(tmp_path, "[sizing]\nmax_exposure = 0.5\n")))
    whole = as_dict(BacktestConfig())
    assert written_out["sizing"] == whole["sizing"] | {"max_exposure": 0.5}
    assert written_out | {"sizing": {}} == whole | {"sizing": {}}
