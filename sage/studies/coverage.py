"""Do 90 % intervals hold 90 %: overall, in calm and wild markets, by hour, by bar ahead, and after a break?

The detector itself is driven bar by bar, every level counts, and an interval without end is a miss. Only the
forecasts are made ahead, in batches, as for a backtest.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.bars import Bars
from data.errors import DataError, OptionError
from data.market import Market
from regime.config import RegimeConfig
from regime.detector import Detector
from regime.forecast import Context
from regime.model.checkpoint import EMBEDDED, Checkpoint, find_checkpoint
from regime.model.engines import Engine, EngineSpec, choose_engine, load_engine
from regime.model.weights import load_weights
from regime.serving.ahead import AheadForecasts, contexts, forecast_ahead
from regime.signal import BarRejected, Level
from regime.window import BarInput
from sage.backtest import CLOSURE_SECONDS
from sage.config import as_dict
from sage.evaluation.settings import EvaluationConfig
from sage.evaluation.study import load_market, wanted_markets
from sage.progress import Progress, Silent
from sage.studies.coverage_breaks import KINDS, AfterBreak, BreakConfig, Kind, after_breaks, simulate_breaks
from sage.studies.coverage_measures import Walk, measures
from sage.studies.kept import KeptCells

FloatArray = NDArray[np.float64]

METHOD_VERSION = 1
MIN_JUDGED_BARS = 300
_SHOW_BARS = 500

Cell = dict[str, Any]


@dataclass(frozen=True)
class CoverageConfig:
    """What is looked at.

    Bars come from ``source`` (synthetic, sp500 or none), or with ``catalog`` from there: ``instruments`` (all when
    empty) of size ``bar`` (every one held when None). Of each the newest ``bars`` are judged, after ``warm_up_bars``
    that the detector sees before; it sees none earlier. ``breaks`` says how simulated breaks of volatility come about.
    ``out`` keeps finished markets for a rerun.
    """

    source: str = "none"
    catalog: Path | None = None
    instruments: tuple[str, ...] = ()
    bar: str | None = None
    start: str | None = None
    end: str | None = None
    model: str = EMBEDDED
    engine: EngineSpec = field(default_factory=EngineSpec)
    regime: RegimeConfig = field(default_factory=RegimeConfig)
    bars: int = 10_000
    warm_up_bars: int = 1_000
    breaks: BreakConfig = field(default_factory=BreakConfig)
    seed: int = 7
    out: Path | None = None


@dataclass(frozen=True)
class Coverage:
    """Cells of all series and of all kinds of breaks; ``reused`` of them were found in ``config.out``."""

    config: CoverageConfig
    checkpoint: Checkpoint
    engine: str
    series: list[Cell]
    breaks: list[AfterBreak]
    skipped: list[str]
    reused: int


def cover(config: CoverageConfig, progress: Progress | None = None) -> Coverage:
    """Drive the detector over everything asked for.

    Raises
    ------
    OptionError, DataError, ModelUnavailable
        If options, data or model are at fault; a series that is too short is an error where it was named, or where
        nothing else remains.
    """
    check(config)
    show = progress or Silent()
    wanted = _wanted(config)
    show.stage("loading the model", 1)
    checkpoint = find_checkpoint(config.model)
    weights = load_weights(checkpoint)
    choice = choose_engine(config.engine, weights.architecture)
    settings = {
        "method": METHOD_VERSION,
        "checkpoint": checkpoint.digest,
        "engine": choice.name,
        "dtype": config.engine.dtype,
        "regime": as_dict(config.regime),
    }
    kept = KeptCells(config.out, "coverage", settings)
    engine: Engine | None = None

    def forecaster() -> EngineForecaster:
        nonlocal engine
        if engine is None:
            engine, _ = load_engine(weights, config.engine)
        return EngineForecaster(checkpoint.id, engine)

    series, skipped = [], []
    for instrument, bar in wanted:
        market = load_market(_held(config), instrument, bar)
        name = f"{instrument} {bar}"
        try:
            part = _newest(market, config, name)
        except DataError as error:
            if config.instruments or config.catalog is None:
                raise
            skipped.append(str(error))
            continue
        key = f"{name} {part.bars.sha256()[:16]} {config.warm_up_bars} {len(market.bars)}"
        cell = kept.get(key)
        if cell is None:
            cell = _series_cell(config, market, part, forecaster(), show, name)
            kept.put(key, cell)
        series.append(cell)
    found = [_after_break(config, kind, kept, forecaster, show) for kind in KINDS if config.breaks.number]
    if not series and not found:
        raise DataError("; ".join(skipped))
    return Coverage(config, checkpoint, choice.name, series, found, skipped, kept.reused)


def check(config: CoverageConfig) -> None:
    """Refuse what makes no sense. Raises OptionError."""
    if config.catalog is None:
        if config.source not in {"synthetic", "sp500", "none"}:
            raise OptionError(f"--data {config.source}: must be synthetic, sp500 or none; for ingested bars: --catalog")
        for option in ("instruments", "bar", "start", "end"):
            if getattr(config, option):
                raise OptionError(f"--{option.rstrip('s')} goes with --catalog")
        if config.source == "none" and not config.breaks.number:
            raise OptionError("nothing to look at: give --catalog, --data or --breaks")
    earliest = config.regime.model_min_bars + config.regime.horizon_bars + config.regime.calibration.min_scores
    for holds, message in (
        (config.bars >= MIN_JUDGED_BARS, f"--bars must be {MIN_JUDGED_BARS} or more"),
        (config.warm_up_bars > earliest, f"--warm-up must be more than {earliest} bars: level FULL begins there"),
        (0 <= config.breaks.number <= 100_000, "--breaks must lie between 0 and 100000"),
        (config.seed >= 0, "--seed must not be negative"),
        (config.engine.threads >= 1, "--threads must be 1 or more"),
    ):
        if not holds:
            raise OptionError(message)


def _held(config: CoverageConfig) -> EvaluationConfig:
    return EvaluationConfig(
        source=config.source, catalog=config.catalog, instruments=config.instruments, bar=config.bar,
        start=config.start, end=config.end, seed=config.seed,
    )  # fmt: skip


def _wanted(config: CoverageConfig) -> list[tuple[str, str]]:
    return [] if config.catalog is None and config.source == "none" else wanted_markets(_held(config))


def _newest(market: Market, config: CoverageConfig, name: str) -> Market:
    """The bars that the detector is shown. Raises DataError where none would be left to judge."""
    held, needed = len(market.bars), config.warm_up_bars + MIN_JUDGED_BARS
    if held < needed:
        raise DataError(f"{name}: {held:,} bars are too few; it takes {needed:,} to warm up and to judge")
    return market.part(max(0, held - config.warm_up_bars - config.bars), held)


@dataclass(frozen=True)
class EngineForecaster:
    """An engine in this process, asked as a model process is."""

    checkpoint_id: str
    engine: Engine

    def forecast(self, contexts: Context, horizon_bars: int, timeout_s: float) -> NDArray[np.float32]:  # noqa: ARG002
        """See regime.forecast.Forecaster."""
        return self.engine.forecast(contexts, horizon_bars)


def walk(
    bars: Bars, regime: RegimeConfig, bar_seconds: int, forecaster: EngineForecaster, show: Progress, name: str
) -> Walk:
    """The detector's intervals at every accepted bar."""
    inputs = [BarInput(*values) for values in zip(*(column.tolist() for column in bars.columns()), strict=True)]
    total = sum(1 for _ in contexts(inputs, regime, bar_seconds))
    show.stage(f"{name}: forecasting", total)
    known = AheadForecasts(forecaster.checkpoint_id, None)
    forecast_ahead(inputs, regime, bar_seconds, forecaster, known, show.advance)
    show.stage(f"{name}: bar by bar", len(inputs))
    detector = Detector(regime, name, bar_seconds, forecaster, known)
    said: list[tuple[int, float, int, float]] = []
    lows, highs = [], []
    for number, bar in enumerate(inputs, start=1):
        signal = detector.step(bar)
        if number % _SHOW_BARS == 0:
            show.advance(_SHOW_BARS)
        if isinstance(signal, BarRejected):
            continue
        window, proposed = detector.state.window, detector.state.calibrator.proposed
        low = high = np.full(regime.horizon_bars + 1, np.nan)
        if signal.level is Level.FULL and proposed is not None:
            low, high = proposed.lows, proposed.highs
        # What was published counts, at any level.
        lows.append([signal.bar_interval_low, *low[1:-1], signal.interval_low])
        highs.append([signal.bar_interval_high, *high[1:-1], signal.interval_high])
        change = math.nan if window.restarted_now else float(window.returns.view(1)[0])
        said.append((signal.ts_event, change, int(signal.level), signal.realised_volatility))
    stamps, returns, levels, volatility = zip(*said, strict=True)
    return Walk(
        ts_ns=np.array(stamps, dtype=np.int64),
        returns=np.array(returns),
        lows=np.array(lows),
        highs=np.array(highs),
        levels=np.array(levels, dtype=np.int64),
        volatility=np.array(volatility),
    )


def _series_cell(
    config: CoverageConfig, market: Market, part: Market, forecaster: EngineForecaster, show: Progress, name: str
) -> Cell:
    closure = 0 if market.kind.always_open else CLOSURE_SECONDS
    regime = dataclasses.replace(config.regime, closure_seconds=closure)
    walked = walk(part.bars, regime, market.size.seconds, forecaster, show, name)
    intraday = 2 * market.size.seconds < 86_400
    found = measures(walked, config.warm_up_bars, regime.calibration.miscoverage, intraday=intraday)
    return {"series": name, "bars_held": len(market.bars)} | found


def _after_break(
    config: CoverageConfig, kind: Kind, kept: KeptCells, forecaster: Callable[[], EngineForecaster], show: Progress
) -> AfterBreak:
    key = f"breaks {kind.name} {config.breaks} {config.warm_up_bars} {config.seed}"
    cell = kept.get(key)
    if cell is None:
        simulated = simulate_breaks(kind, config.breaks, config.warm_up_bars, config.seed)
        walked = walk(simulated.bars, config.regime, simulated.bar_seconds, forecaster(), show, kind.name)
        cell = after_breaks(kind, simulated, walked, config.regime.calibration.miscoverage, config.warm_up_bars)
        kept.put(key, cell)
    return AfterBreak.of(cell)
