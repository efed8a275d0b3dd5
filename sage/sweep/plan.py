"""The plan of a sweep: which runs there are, each with a key of its own."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from data.errors import OptionError
from data.market import Market, parse_span
from sage.backtest import load_market
from sage.config import BacktestConfig, DataConfig, as_dict, holds_whole_numbers, validate, with_keys
from sage.model import runs_online
from sage.sweep.axes import POINTS_MAX, Axis, points, require_varied
from sage.sweep.places import here
from sage.sweep.windows import Window, WindowConfig, windows_of

RUNS_MAX = POINTS_MAX
MarketKey = tuple[DataConfig, int]
"""Data, and the seed of simulated bars."""

_KEY_LETTERS = 16
_MARKET_LETTERS = 8
_OF_A_WINDOW = ("context_bars", "horizon_bars", "model_min_bars", "max_gap_bars", "closure_seconds", "max_rejects",
                "seasonal")  # fmt: skip


@dataclass(frozen=True)
class Period:
    """Times between which bars count, as ``--start`` and ``--end`` have them; None is no bound."""

    start: str | None = None
    end: str | None = None

    def __str__(self) -> str:
        return "all" if self.start is None and self.end is None else f"{self.start or ''}..{self.end or ''}"


@dataclass(frozen=True)
class SweepConfig:
    """A sweep over a backtest; every combination of ``axes``, ``instruments``, ``periods`` and windows is a run.

    ``draws`` and ``seed`` are of the axes whose values are drawn. No instruments are that of the backtest alone.
    """

    backtest: BacktestConfig = field(default_factory=BacktestConfig)
    axes: tuple[Axis, ...] = ()
    draws: int = 0
    seed: int = 0
    instruments: tuple[str, ...] = ()
    periods: tuple[Period, ...] = ()
    windows: WindowConfig | None = None


@dataclass(frozen=True)
class Task:
    """One run: a whole configuration, and the window of its market in which orders are sent; None is all of it.

    ``trial`` numbers the combination of parameters and instrument: runs of one trial on several periods and windows
    are the same idea on other days.
    """

    number: int
    trial: int
    values: dict[str, Any]
    config: BacktestConfig
    period: Period
    window: Window | None

    @property
    def instrument(self) -> str:
        """What is traded, or where simulated bars come from."""
        return self.config.data.instrument or self.config.data.source

    @cached_property
    def key(self) -> str:
        """The same for the same run, in any sweep and any process, wherever its bars and forecasts are kept."""
        # Without its end: more bars, which make the last window longer, make the same run anew.
        window = None if self.window is None else [self.window.first, self.window.start]
        values = as_dict(self.config)
        values["model"].pop("store_dir")
        values["data"].pop("catalog")
        text = json.dumps([values, window], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:_KEY_LETTERS]


@dataclass(frozen=True)
class MarketFacts:
    """What a plan knows of a market: how many bars, and one name each for its instrument and their size."""

    bars: int
    question: str
    size: str
    trading_days_per_year: int


@dataclass(frozen=True)
class Plan:
    """All runs of a sweep in their order, and their markets; ``sha256`` is of the bars that each run sees, by key."""

    config: SweepConfig
    tasks: list[Task]
    markets: dict[MarketKey, MarketFacts]
    sha256: dict[str, str]

    @property
    def trials(self) -> int:
        """How many combinations of parameters and instrument there are."""
        return len({task.trial for task in self.tasks})

    @property
    def bars_to_run(self) -> int:
        """Bars of all runs together."""
        return sum(self.run_bars(task) for task in self.tasks)

    def only(self, tasks: list[Task]) -> Plan:
        """The same with fewer runs."""
        return dataclasses.replace(self, tasks=tasks)

    def market(self, task: Task) -> MarketFacts:
        """What a run trades on."""
        return self.markets[market_key(task.config)]

    def run_bars(self, task: Task) -> int:
        """Bars that a run sees."""
        window = task.window
        return self.market(task).bars if window is None else window.stop - window.first


def plan_of(config: SweepConfig) -> Plan:
    """Work out every run, and refuse what cannot be run before any of them begins.

    Raises
    ------
    OptionError
        For a key that is unknown (the nearest are named), values that make no sense, periods that overlap, and what
        cannot be run from the store alone.
    DataError
        For an instrument without bars, or windows longer than the bars there are.
    """
    base = config.backtest
    require_varied(config.axes, config.draws)
    _require_apart(config.periods)
    for option, given in (("--instrument", config.instruments), ("--period", config.periods)):
        if given and base.data.source != "catalog":
            raise OptionError(f"{option} goes with --catalog")
    for name in config.instruments:
        if config.instruments.count(name) > 1:
            raise OptionError(f"--instrument {name}: is there twice")
    for axis in config.axes:
        if base.data.source != "synthetic" and (axis.key == "seed" or axis.key.startswith("data.synthetic")):
            raise OptionError(
                f"--set {axis.key}: has no say in a run on recorded bars, and each value would count as a trial"
            )
    axes = [axis.in_whole_numbers() if holds_whole_numbers(base, axis.key) else axis for axis in config.axes]
    chosen = points(axes, config.draws, config.seed)
    _require_size(config, len(chosen))
    settings_of = [_with(base, values) for values in chosen]
    for settings in settings_of:
        _require_from_store(settings)
        if config.windows is not None and settings.own.strategy is not None:
            raise OptionError("windows go with SAGE's strategy: one of your own cannot be kept from trading early")
    # One for all: windows of the same number must be the same days, whatever the horizon.
    horizon_bars = max(settings.regime.horizon_bars for settings in settings_of)
    tasks: list[Task] = []
    markets: dict[MarketKey, MarketFacts] = {}
    parts: dict[tuple[MarketKey, int, int], str] = {}
    sha256: dict[str, str] = {}
    trials: dict[tuple[int, str | None], int] = {}
    for number, values in enumerate(chosen):
        for instrument, period, settings in _markets(config, settings_of[number]):
            key = market_key(settings)
            if key not in markets:
                markets[key] = _facts(key)
            trial = trials.setdefault((number, instrument), len(trials))
            for window in _windows(config, settings, markets[key].bars, horizon_bars):
                task = Task(len(tasks), trial, values, settings, period, window)
                rows = (0, markets[key].bars) if window is None else (window.first, window.stop)
                if (key, *rows) not in parts:
                    parts[key, *rows] = market_of(key).bars[slice(*rows)].sha256()
                sha256[task.key] = parts[key, *rows]
                tasks.append(task)
    if len(sha256) < len(tasks):
        raise OptionError("two runs are one and the same: an axis sets what has no say in a run")
    return Plan(config, tasks, markets, sha256)


def market_key(config: BacktestConfig) -> MarketKey:
    """What names the bars of a run; the same for the same bars."""
    return config.data, config.seed if config.data.source == "synthetic" else 0


def asked(config: BacktestConfig) -> str:
    """What decides which windows are asked for on given bars, and of whom: the same for the same forecasts."""
    regime = {name: getattr(config.regime, name) for name in _OF_A_WINDOW}
    return json.dumps([regime, as_dict(config.model), as_dict(config.serving.engine)], sort_keys=True, default=str)


@lru_cache(maxsize=4)
def market_of(key: MarketKey) -> Market:
    """The bars of a run; the last few are remembered. Raises OptionError or DataError where there are none."""
    data, seed = key
    return load_market(here(BacktestConfig(data=data, seed=seed)))


def _markets(config: SweepConfig, settings: BacktestConfig) -> Iterator[tuple[str | None, Period, BacktestConfig]]:
    data = settings.data
    for instrument in config.instruments or (data.instrument,):
        for period in config.periods or (Period(data.start, data.end),):
            chosen: DataConfig = dataclasses.replace(data, instrument=instrument, start=period.start, end=period.end)
            yield instrument, period, dataclasses.replace(settings, data=chosen)


def _facts(key: MarketKey) -> MarketFacts:
    market = market_of(key)
    question = str(market.instrument.id)
    data, seed = key
    if data.source == "synthetic":
        # Each seed is a market of its own; more bars are more of the same one.
        made = json.dumps(dataclasses.asdict(dataclasses.replace(data.synthetic, bars=0, seed=seed)))
        question += f" simulated {hashlib.sha256(made.encode()).hexdigest()[:_MARKET_LETTERS]}"
    return MarketFacts(len(market.bars), question, str(market.size), market.kind.trading_days_per_year)


def _windows(config: SweepConfig, settings: BacktestConfig, bars: int, horizon_bars: int) -> list[Window | None]:
    if config.windows is None:
        return [None]
    where = f"{settings.data.instrument or settings.data.source}"
    return [*windows_of(bars, config.windows, horizon_bars, where)]


def _require_from_store(settings: BacktestConfig) -> None:
    """Refuse what would ask a model in a run, or go on without one."""
    if runs_online(settings):
        raise OptionError("a sweep reads forecasts from the store: --online, deadlines and forecasters of your own "
                          "ask a model at every bar, which sage backtest does")  # fmt: skip
    if not settings.model.store:
        raise OptionError("a sweep reads forecasts from the store: --no-store goes with sage backtest")
    if settings.model.allow_degraded:
        raise OptionError("a run of a sweep fails where forecasts are missing: model.allow_degraded goes with "
                          "sage backtest")  # fmt: skip


def _with(base: BacktestConfig, values: dict[str, Any]) -> BacktestConfig:
    settings = with_keys(base, values) if values else base
    try:
        validate(settings)
    except OptionError as error:
        told = ", ".join(f"{key}={value}" for key, value in values.items())
        raise OptionError(f"{told}: {error}") from error
    return settings


def _require_size(config: SweepConfig, count: int) -> None:
    runs = count * max(1, len(config.instruments)) * max(1, len(config.periods))
    if runs > RUNS_MAX:
        raise OptionError(f"{runs:,} runs before windows; {RUNS_MAX:,} is the most")


def _require_apart(periods: tuple[Period, ...]) -> None:
    """Days that two periods share would count twice in pooled figures."""
    spans = []
    for period in periods:
        try:
            spans.append((parse_span(period.start, period.end), period))
        except OptionError as error:
            raise OptionError(f"--period {period}: {error}") from error
    for ((begin, end), one), ((other_begin, other_end), other) in itertools.combinations(spans, 2):
        # The bar that closes where one ends and the next begins has no return in the later one.
        before = end is not None and other_begin is not None and end <= other_begin
        after = begin is not None and other_end is not None and other_end <= begin
        if not (before or after):
            raise OptionError(f"--period {one} and {other}: overlap, and what both hold would count twice")
