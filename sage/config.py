"""The whole configuration of a run, as frozen dataclasses that TOML files and options fill."""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from data.errors import OptionError
from data.synthetic import SyntheticConfig
from regime.config import RegimeConfig
from regime.model.checkpoint import EMBEDDED
from regime.serving.config import ServingConfig
from sage.ensemble import EnsembleConfig
from sage.models.built_in import BUILT_IN
from sage.sizing import SizingConfig
from sage.watch import WatchConfig

Config = TypeVar("Config")

CASH_MAX = 1e12
"""NT's money ends at 1.7e13; a run needs room to grow."""

LATENCY_MS_MAX = 30 * 86_400_000.0


@dataclass(frozen=True)
class DataConfig:
    """Where bars come from. All but ``source`` and ``synthetic`` belong to the source ``catalog``."""

    source: Literal["synthetic", "sp500", "catalog"] = "synthetic"
    catalog: str | None = None
    instrument: str | None = None
    bar: str | None = None
    start: str | None = None
    end: str | None = None
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)


@dataclass(frozen=True)
class CostConfig:
    """What trading costs, and how much of it a bar bears; None is a cost that is not modelled.

    ``fee_bps`` and ``slippage_bps`` are per trade. ``spread_bps`` is the full spread; None takes what was measured when
    bid and ask were ingested, else 2 bps. ``funding_bps_8h`` is what long positions in a perpetual pay to short ones
    in 8 hours, ``borrow_bps_year`` what a short position in shares or coins pays of its value in a year. An order
    takes ``participation`` of a bar's volume at most, where that is known; 0 sets no limit. ``latency_ms`` is the
    time from order to venue.
    """

    fee_bps: float = 5.0
    spread_bps: float | None = None
    slippage_bps: float | None = None
    funding_bps_8h: float | None = None
    borrow_bps_year: float | None = None
    participation: float = 0.01
    latency_ms: float = 50.0


@dataclass(frozen=True)
class ModelConfig:
    """Which checkpoint answers, and how.

    ``online`` asks the model bar by bar; otherwise forecasts are made ahead in batches, and with ``store`` kept for
    the next run, in ``store_dir`` or the usual place. ``allow_degraded`` runs without a model if there is none.
    """

    name: str = EMBEDDED
    online: bool = False
    store: bool = True
    store_dir: str | None = None
    allow_degraded: bool = False


@dataclass(frozen=True)
class OwnConfig:
    """Classes of the user's own, each as ``package.module:Class``.

    ``strategy`` trades in the place of SAGE's, with ``params`` for its configuration; ``forecaster`` answers in the
    place of the model; ``alphas`` vote beside the ensemble's.
    """

    strategy: str | None = None
    params: dict[str, Any] = field(default_factory=dict)
    forecaster: str | None = None
    alphas: tuple[str, ...] = ()


@dataclass(frozen=True)
class WalkForwardConfig:
    """Successive windows outside the sample: ``folds`` of one length, or of ``fold_bars`` each.

    Before each lie all earlier bars, ``train_bars`` at least; with ``rolling`` the last ``train_bars`` alone. ``grid``
    names configuration keys, such as ``sizing.target_volatility``, with the values of which each fold takes those that
    did best on the bars before it.
    """

    folds: int = 5
    fold_bars: int | None = None
    train_bars: int = 1_000
    rolling: bool = False
    grid: dict[str, tuple[Any, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class BacktestConfig:
    """All of a backtest. ``cash`` is in the quote currency; ``seed`` drives the simulated market."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    serving: ServingConfig = field(default_factory=ServingConfig)
    regime: RegimeConfig = field(default_factory=RegimeConfig)
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    sizing: SizingConfig = field(default_factory=SizingConfig)
    costs: CostConfig = field(default_factory=CostConfig)
    own: OwnConfig = field(default_factory=OwnConfig)
    walk_forward: WalkForwardConfig = field(default_factory=WalkForwardConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)
    cash: float = 100_000.0
    seed: int = 7


def load_config(path: Path) -> BacktestConfig:
    """Read a TOML file; what it leaves out keeps its default.

    Raises
    ------
    OptionError
        If the file is missing or no TOML, or has an unknown key (the nearest known ones are named) or a wrong type.
    """
    try:
        document = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise OptionError(f"--config {path}: no such file") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise OptionError(f"--config {path}: {error}") from error
    _require_known_keys(document, BacktestConfig(), f"--config {path}", "")
    try:
        return msgspec.convert(document, BacktestConfig)
    except msgspec.ValidationError as error:
        raise OptionError(f"--config {path}: {error}") from error


def with_keys(config: BacktestConfig, changes: dict[str, Any]) -> BacktestConfig:
    """A copy in which keys such as ``sizing.target_volatility`` have other values.

    Raises
    ------
    OptionError
        For a key that is unknown, with the nearest known ones, or a value of a wrong type.
    """
    document = as_dict(config)
    for key, value in changes.items():
        *tables, last = key.split(".")
        nested: dict[str, Any] = {last: value}
        table = document
        for name in reversed(tables):
            nested = {name: nested}
        _require_known_keys(nested, config, key, "")
        for name in tables:
            table = table[name]
            if not isinstance(table, dict):
                raise OptionError(f"{key}: {name} is no table of the configuration")
        table[last] = value
    try:
        return msgspec.convert(document, BacktestConfig)
    except msgspec.ValidationError as error:
        raise OptionError(f"{', '.join(changes)}: {error}") from error


def holds_whole_numbers(config: object, key: str) -> bool:
    """True for a key such as ``regime.context_bars``; false also for one that there is none of."""
    *tables, last = key.split(".")
    for name in tables:
        config = getattr(config, name, None)
    if not dataclasses.is_dataclass(config):
        return False
    hint = typing.get_type_hints(type(config)).get(last)
    return hint is int or set(typing.get_args(hint)) == {int, type(None)}


def as_dict(config: object) -> dict[str, Any]:
    """A configuration for JSON, nested as it is."""
    # Not msgspec alone: of what it has read itself it leaves out the fields that kept their defaults.
    return dict(msgspec.to_builtins(dataclasses.asdict(config)))  # type: ignore[call-overload]


def with_values(config: Config, **values: Any) -> Config:
    """A copy with the given fields replaced; None leaves a field as it is."""
    chosen = {name: value for name, value in values.items() if value is not None}
    return dataclasses.replace(config, **chosen) if chosen else config  # type: ignore[type-var]


def validate(config: BacktestConfig) -> None:
    """Refuse numbers that make no sense. Raises OptionError naming the key."""
    _require_finite(config, "")
    regime, sizing, costs = config.regime, config.sizing, config.costs
    breaker, serving, walk = regime.breaker, config.serving, config.walk_forward
    checks = (
        (0 < config.cash <= CASH_MAX, f"cash must be positive, and at most {CASH_MAX:g}"),
        (config.seed >= 0, "seed must not be negative"),
        (costs.latency_ms <= LATENCY_MS_MAX, "latency_ms must be at most 30 days"),
        (min(costs.fee_bps, costs.spread_bps or 0.0, costs.slippage_bps or 0.0, costs.latency_ms) >= 0,
         "fee_bps, spread_bps, slippage_bps and latency_ms must not be negative"),
        (max(costs.fee_bps, costs.spread_bps or 0.0, costs.slippage_bps or 0.0) < 10_000,
         "fee_bps, spread_bps and slippage_bps must be below 10000"),
        (abs(costs.funding_bps_8h or 0.0) < 1_000, "funding_bps_8h must lie between -1000 and 1000"),
        (0 <= (costs.borrow_bps_year or 0.0) < 100_000, "borrow_bps_year must lie between 0 and 100000"),
        (0 <= costs.participation <= 1, "participation must lie between 0 and 1"),
        (regime.deadline_ms == 0 or regime.deadline_ms > regime.reserve_ms,
         f"deadline_ms must exceed the reserve of {regime.reserve_ms:g} ms, or be 0 for none"),
        (regime.hang_limit_s > 0, "hang_limit_s must be positive"),
        (regime.context_bars >= regime.model_min_bars >= 2, "model_min_bars must lie between 2 and context_bars"),
        (1 <= regime.horizon_bars <= 512, "horizon_bars must lie between 1 and 512"),
        (regime.context_bars <= 4096, "context_bars must be at most 4096"),
        (0 < regime.calibration.miscoverage < 0.5, "miscoverage must lie between 0 and 0.5"),
        (0 <= regime.calibration.step_size < 1, "step_size must lie in [0, 1)"),
        (0 <= regime.calibration.volatility_step < 1, "volatility_step must lie in [0, 1)"),
        (0 <= regime.calibration.hour_step < 1, "hour_step must lie in [0, 1)"),
        (2 <= regime.calibration.min_scores <= regime.calibration.window_scores,
         "min_scores must lie between 2 and window_scores"),
        (regime.classifier.reference_bars >= 50, "regime.classifier.reference_bars must be 50 or more"),
        (min(regime.classifier.band, regime.classifier.direction_band, regime.classifier.forecast_weight) >= 0,
         "regime.classifier.band, direction_band and forecast_weight must not be negative"),
        (regime.classifier.least_bars >= 1, "regime.classifier.least_bars must be 1 or more"),
        (0 < sizing.max_exposure <= 20, "max_exposure must lie between 0 and 20"),
        (sizing.target_volatility > 0, "target_volatility must be positive"),
        (0 <= sizing.rebalance_band < 1, "rebalance_band must lie in [0, 1)"),
        *_limits(config),
        *_marks(config.watch),
        (config.data.synthetic.bars >= 2, "a market needs 2 bars or more"),
        (config.data.synthetic.seed == SyntheticConfig().seed,
         "data.synthetic.seed: the seed of the simulated market stands at the top level, as seed"),
        (1 <= breaker.minimum_calls <= breaker.window_calls,
         "regime.breaker.minimum_calls must lie between 1 and window_calls"),
        (breaker.failure_rate > 0 and breaker.slow_rate > 0, "regime.breaker's rates must be positive"),
        (0 < breaker.slow_share <= 1, "regime.breaker.slow_share must lie between 0 and 1"),
        (breaker.open_bars >= 1 and breaker.probes >= 1, "regime.breaker.open_bars and probes must be 1 or more"),
        (2 <= regime.health.recent_bars <= regime.health.window_bars,
         "regime.health.recent_bars must lie between 2 and window_bars"),
        (regime.health.check_every_bars >= 1 and regime.health.sustained_checks >= 1,
         "regime.health.check_every_bars and sustained_checks must be 1 or more"),
        (regime.health.excess_limit >= 0, "regime.health.excess_limit must not be negative"),
        (10 <= regime.drift.recent_bars <= regime.drift.min_reference_bars <= regime.drift.reference_bars,
         "regime.drift: 10 <= recent_bars <= min_reference_bars <= reference_bars must hold"),
        (min(regime.drift.check_every_bars, regime.drift.sustained_checks) >= 1 and regime.drift.recut_every_bars >= 4,
         "regime.drift: check_every_bars and sustained_checks must be 1 or more, recut_every_bars 4 or more"),
        (0 < regime.drift.significance < 1 and 0 < regime.drift.adwin_delta < 1,
         "regime.drift.significance and adwin_delta must lie between 0 and 1"),
        (0 <= serving.back_off_s <= serving.back_off_max_s,
         "serving.back_off_s must lie between 0 and back_off_max_s"),
        (min(serving.start_timeout_s, serving.silence_limit_s) > 0,
         "serving.start_timeout_s and silence_limit_s must be positive"),
        (serving.watch_s >= 0 and serving.memory_limit_mb >= 0,
         "serving.watch_s and memory_limit_mb must not be negative"),
        (0 < serving.recycle_share <= 1, "serving.recycle_share must lie between 0 and 1"),
        (config.own.strategy is None or not config.own.alphas,
         "alphas of your own vote in SAGE's strategy, and have no say in one of yours: --alpha or --strategy"),
        (len(set(config.own.alphas)) == len(config.own.alphas), "own.alphas names one twice"),
        (config.own.strategy is not None or not config.own.params, "params are for a strategy of your own: --strategy"),
        (config.serving.engine.threads >= 1, "serving.engine.threads must be 1 or more"),
        (1 <= walk.folds <= 1_000, "walk_forward.folds must lie between 1 and 1000"),
        (walk.fold_bars is None or walk.fold_bars >= 20, "walk_forward.fold_bars must be 20 or more"),
        (walk.train_bars >= 100, "walk_forward.train_bars must be 100 or more"),
        (all(walk.grid.values()), "walk_forward.grid must have a value, at least, for each of its keys"),
    )  # fmt: skip
    for holds, message in checks:
        if not holds:
            raise OptionError(message)


def _limits(config: BacktestConfig) -> Iterator[tuple[bool, str]]:
    """Limits of the position and of the weights, each alone and against each other."""
    sizing, ensemble = config.sizing, config.ensemble
    alphas = len(ensemble.alphas) + len(config.own.alphas)
    floor = ensemble.weights.floor
    yield (
        sizing.rebalance_band < sizing.max_exposure,
        (
            f"sizing.rebalance_band ({sizing.rebalance_band:g}) must be below max_exposure ({sizing.max_exposure:g}), "
            "or nothing would ever be bought"
        ),
    )
    yield sizing.conviction_gain > 0, "sizing.conviction_gain must be positive"
    yield 0 <= sizing.full_size_uncertainty < 1, "sizing.full_size_uncertainty must lie in [0, 1)"
    yield 0 < sizing.brake_drawdown <= 1, "sizing.brake_drawdown must lie between 0 and 1"
    yield (
        0 <= sizing.release_drawdown < sizing.brake_drawdown,
        (
            f"sizing.release_drawdown ({sizing.release_drawdown:g}) must be below brake_drawdown "
            f"({sizing.brake_drawdown:g}): the brake would let go where it takes hold"
        ),
    )
    yield 0 < sizing.brake_factor <= 1, "sizing.brake_factor must lie between 0 and 1"
    yield sizing.degrade_hold_bars >= 0, "sizing.degrade_hold_bars must not be negative"
    yield sizing.emergency_flatten_bars >= 1, "sizing.emergency_flatten_bars must be 1 or more"
    yield alphas >= 1, "ensemble.alphas: one alpha is needed at least"
    yield floor >= 0, "ensemble.weights.floor must not be negative"
    yield (
        floor * alphas <= 1,
        (
            f"ensemble.weights.floor of {floor:g} for each of {alphas} alphas is more than there is: "
            f"at most {1 / max(alphas, 1):.4g}"
        ),
    )
    yield ensemble.weights.memory_bars >= 1, "ensemble.weights.memory_bars must be 1 or more"
    yield ensemble.vote_limit_ms >= 0, "ensemble.vote_limit_ms must not be negative"
    unknown = [name for name in ensemble.alphas if name not in BUILT_IN]
    yield not unknown, f"ensemble.alphas: no alpha {', '.join(unknown)}; there are {', '.join(BUILT_IN)}"
    yield len(set(ensemble.alphas)) == len(ensemble.alphas), "ensemble.alphas names one twice"


def _marks(watch: WatchConfig) -> Iterator[tuple[bool, str]]:
    """When somebody is told."""
    yield (
        0.1 <= min(watch.memory_share, watch.gpu_share) <= max(watch.memory_share, watch.gpu_share) < 1,
        "watch.memory_share and gpu_share must lie in [0.1, 1)",
    )
    yield watch.degraded_bars >= 2, "watch.degraded_bars must be 2 or more"
    yield (
        min(watch.raise_after_s, watch.clear_after_s, watch.cool_down_s) >= 0,
        "watch.raise_after_s, clear_after_s and cool_down_s must not be negative",
    )


def _require_finite(config: object, prefix: str) -> None:
    """NaN passes every comparison the wrong way, so it is kept out first."""
    for item in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            _require_finite(value, f"{prefix}{item.name}.")
        elif isinstance(value, float) and not math.isfinite(value):
            raise OptionError(f"{prefix}{item.name} must be a finite number, not {value}")


def _require_known_keys(document: dict[str, Any], defaults: object, where: str, prefix: str) -> None:
    known = {item.name: getattr(defaults, item.name) for item in dataclasses.fields(defaults)}  # type: ignore[arg-type]
    for key, value in document.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=3) or sorted(known)
            named = ", ".join(f"{prefix}{name}" for name in near)
            raise OptionError(f"{where}: unknown key {prefix}{key}; near it: {named}")
        if dataclasses.is_dataclass(known[key]):
            if not isinstance(value, dict):
                raise OptionError(f"{where}: {prefix}{key} is a table, [{prefix}{key}]")
            _require_known_keys(value, known[key], where, f"{prefix}{key}.")
