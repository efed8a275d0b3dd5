"""How often do the monitors of drift and health cry wolf, and how soon do they cry where there is one?

Simulated streams of returns, undisturbed at first, are shown to the very monitors that trade, with the forecasts of a
real checkpoint. From one bar on each is continued undisturbed and in several disturbed ways: the returns change, or the
model's answers do. The index of stability is judged three ways at the same checks: by the critical value of a block
bootstrap, by that for independent data (a scaled chi-squared; Yurdakul, 2018), and by the rule of thumb.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.stats import chi2

from data.errors import OptionError
from regime.classifier import EwmaVolatility
from regime.config import DriftConfig, HealthConfig
from regime.drift import BINS, RULE_OF_THUMB, DriftMonitor, Stream
from regime.forecast import MEDIAN
from regime.health import HealthMonitor
from regime.model.checkpoint import EMBEDDED, find_checkpoint
from regime.model.engines import Engine, EngineSpec, choose_engine, load_engine
from regime.model.weights import load_weights
from sage.progress import Progress, Silent
from sage.studies.kept import KeptCells

FloatArray = NDArray[np.float64]

METHOD_VERSION = 1
CONTEXT_BARS, HORIZON_BARS = 512, 16
STALE_BARS = 200
_BATCH_ROWS = 512
_VOLATILITY_DECAY = 0.94


class Kind(StrEnum):
    """How an undisturbed stream behaves."""

    INDEPENDENT = "independent t(5)"
    AUTOREGRESSIVE = "AR(1) 0.1, t(5)"
    GARCH = "GARCH(1,1) 0.08 + 0.90, t(5)"
    SWITCHING = "volatility switches, t(5)"


class Disturbance(StrEnum):
    """What happens to the returns, or to the model's answers."""

    NONE = "none"
    VOLATILITY_15 = "volatility x1.5"
    VOLATILITY_20 = "volatility x2"
    MEAN = "mean +0.25 sd"
    TAILS = "tails t(2.5)"
    DEPENDENCE = "autocorrelation 0.3"
    MODEL_12 = "model's widths x1.2"
    MODEL_15 = "model's widths x1.5"
    MODEL_20 = "model's widths x2"
    MODEL_30 = "model's widths x3"
    MODEL_FLIPPED = "model's signs flipped"
    MODEL_STALE = "model's answers 200 bars old"


class Detector(StrEnum):
    """Who may cry."""

    PSI_BOOTSTRAP = "PSI, block bootstrap"
    PSI_INDEPENDENT = "PSI, independent data"
    PSI_RULE = "PSI > 0.1"
    ADWIN = "ADWIN"
    HEALTH = "health"


PSI_RULES = (Detector.PSI_BOOTSTRAP, Detector.PSI_INDEPENDENT, Detector.PSI_RULE)

_WIDTHS = {
    Disturbance.MODEL_12: 1.2,
    Disturbance.MODEL_15: 1.5,
    Disturbance.MODEL_20: 2.0,
    Disturbance.MODEL_30: 3.0,
}
OF_MODEL = {*_WIDTHS, Disturbance.MODEL_FLIPPED, Disturbance.MODEL_STALE}


@dataclass(frozen=True)
class DriftStudyConfig:
    """What is simulated: ``streams`` of each of ``kinds``, ``before`` bars undisturbed and ``after`` that differ.

    ``drift`` and ``health`` are the monitors' lengths; ``out`` keeps finished streams for a rerun.
    """

    kinds: tuple[Kind, ...] = tuple(Kind)
    streams: int = 10
    before: int = 6_000
    after: int = 2_000
    seed: int = 7
    model: str = EMBEDDED
    engine: EngineSpec = field(default_factory=EngineSpec)
    drift: DriftConfig = field(default_factory=DriftConfig)
    health: HealthConfig = field(default_factory=HealthConfig)
    out: Path | None = None


@dataclass(frozen=True)
class StreamResult:
    """What was seen of one stream.

    ``alarms`` are the bars at which each detector cried on the undisturbed stream. ``exceeded`` counts, for each
    stream of numbers, the checks at which the index lay above each critical value, and ``checks`` all of them; both
    from when the reference was long enough for the bootstrap.
    ``delays`` are bars from the break to the first cry, for each disturbance and detector: -1 where there was none,
    -2 where the alarm was on already.
    """

    alarms: dict[str, list[int]]
    exceeded: dict[str, dict[str, int]]
    checks: dict[str, int]
    delays: dict[str, dict[str, int]]


NEVER, ALREADY = -1, -2


@dataclass(frozen=True)
class DriftStudy:
    """All streams; ``watched_from`` is the bar from which on alarms count."""

    config: DriftStudyConfig
    results: dict[Kind, list[StreamResult]]
    engine: str
    watched_from: int
    reused: int = 0


Forecasts = Callable[[FloatArray, int], FloatArray]
"""Quantiles forecast after each bar from one on, of shape (bars - first, HORIZON_BARS, 9)."""


def study(config: DriftStudyConfig, progress: Progress | None = None, forecasts: Forecasts | None = None) -> DriftStudy:
    """Simulate every stream of every kind.

    Parameters
    ----------
    config
        What is simulated.
    progress
        Hears how far it is.
    forecasts
        In the place of the checkpoint that ``config`` names; nothing is kept then.

    Raises
    ------
    OptionError
        If the configuration makes no sense.
    ModelUnavailable
        If the checkpoint or its engine is not to be had.
    """
    check(config)
    show = progress or Silent()
    name, digest, out = "given", "", None
    if forecasts is None:
        weights = load_weights(checkpoint := find_checkpoint(config.model))
        name, out = choose_engine(config.engine, weights.architecture).name, config.out
        forecasts = _by_engine(load_engine(weights, config.engine)[0])
        name, digest = f"{checkpoint.name}, {name}", checkpoint.digest
    settings: dict[str, Any] = dataclasses.asdict(dataclasses.replace(config, out=None, streams=0, kinds=()))
    kept = KeptCells(out, "drift", settings | {"method": METHOD_VERSION, "forecasts": name, "checkpoint": digest})
    show.stage("simulating streams", len(config.kinds) * config.streams)
    results: dict[Kind, list[StreamResult]] = {kind: [] for kind in config.kinds}
    for kind in config.kinds:
        for number in range(config.streams):
            key = f"{kind.name} {number}"
            cell = kept.get(key)
            if cell is None:
                cell = dataclasses.asdict(follow(config, kind, number, forecasts))
                kept.put(key, cell)
            results[kind].append(StreamResult(**cell))
            show.advance(1, f"{kind}, stream {number + 1}")
    return DriftStudy(config, results, name, watched_from(config), kept.reused)


def check(config: DriftStudyConfig) -> None:
    """Refuse what makes no sense. Raises OptionError."""
    needed = watched_from(config) + 500
    for holds, message in (
        (2 <= config.streams <= 10_000, "--streams must lie between 2 and 10000"),
        (config.before >= needed, f"--before must be {needed:,} or more: the monitors compare with so many bars"),
        (config.after >= 2 * config.drift.recent_bars, f"--after must be {2 * config.drift.recent_bars} or more"),
        (config.before + config.after <= 1_000_000, "--before and --after must be a million bars at most"),
        (config.seed >= 0, "--seed must not be negative"),
    ):
        if not holds:
            raise OptionError(message)


def watched_from(config: DriftStudyConfig) -> int:
    """The bar from which on every monitor has something to compare with."""
    return CONTEXT_BARS + config.drift.min_reference_bars + config.drift.recent_bars + config.drift.recut_every_bars


@dataclass(frozen=True)
class Simulated:
    """Returns are ``scale * shocks``; ``shocks`` have unit variance. Shape (bars,)."""

    scale: FloatArray
    shocks: FloatArray

    @property
    def returns(self) -> FloatArray:
        """Log returns."""
        return self.scale * self.shocks


def simulate(config: DriftStudyConfig, kind: Kind, number: int) -> Simulated:
    """The undisturbed stream."""
    bars = config.before + config.after
    rng = np.random.default_rng([config.seed, number, list(Kind).index(kind)])
    shocks = _unit_t(rng, 5.0, bars)
    match kind:
        case Kind.INDEPENDENT:
            return Simulated(np.full(bars, 0.01), shocks)
        case Kind.AUTOREGRESSIVE:
            return Simulated(np.full(bars, 0.01), _autoregressive(shocks, 0.1))
        case Kind.GARCH:
            variance, variances = 1.0, np.empty(bars)
            for bar, shock in enumerate(shocks.tolist()):
                variances[bar] = variance
                variance = 0.02 + variance * (0.08 * shock * shock + 0.90)
            return Simulated(0.01 * np.sqrt(variances), shocks)
        case Kind.SWITCHING:
            # As on the default market of the backtest.
            leaves, state, states = rng.random(bars), 0, np.empty(bars, dtype=np.int64)
            for bar, draw in enumerate(leaves.tolist()):
                states[bar] = state
                state = 1 - state if draw < (1 / 400, 1 / 150)[state] else state
            return Simulated(np.array([0.0030, 0.0075])[states], shocks)


def disturbed(market: Simulated, disturbance: Disturbance, config: DriftStudyConfig, number: int) -> FloatArray:
    """The stream's returns with the disturbance from bar ``config.before`` on; those of the model leave them alone."""
    returns, later = market.returns.copy(), slice(config.before, None)
    rng = np.random.default_rng([config.seed, number, 99])
    match disturbance:
        case Disturbance.VOLATILITY_15:
            returns[later] *= 1.5
        case Disturbance.VOLATILITY_20:
            returns[later] *= 2.0
        case Disturbance.MEAN:
            returns[later] += 0.25 * market.scale[later]
        case Disturbance.TAILS:
            returns[later] = market.scale[later] * _unit_t(rng, 2.5, config.after)
        case Disturbance.DEPENDENCE:
            returns[later] = market.scale[later] * _autoregressive(market.shocks[later], 0.3)
    return returns


def spoilt(quantiles: FloatArray, disturbance: Disturbance, first: int) -> FloatArray:
    """The model's answers, shape (rows, HORIZON_BARS, 9), spoilt from row ``first`` on as the disturbance says."""
    if disturbance not in OF_MODEL:
        return quantiles
    late = quantiles[first:]
    middle = late[:, :, [MEDIAN]]
    if disturbance in _WIDTHS:
        late = middle + _WIDTHS[disturbance] * (late - middle)
    elif disturbance is Disturbance.MODEL_FLIPPED:
        late = -late
    else:
        late = quantiles[first - STALE_BARS : len(quantiles) - STALE_BARS]
    return np.concatenate([quantiles[:first], late])


def _unit_t(rng: np.random.Generator, freedom: float, count: int) -> FloatArray:
    return np.asarray(rng.standard_t(freedom, size=count) * math.sqrt((freedom - 2.0) / freedom))


def _autoregressive(shocks: FloatArray, coefficient: float) -> FloatArray:
    return np.asarray(lfilter([math.sqrt(1.0 - coefficient**2)], [1.0, -coefficient], shocks))


def _by_engine(engine: Engine) -> Forecasts:
    def forecast(returns: FloatArray, first: int) -> FloatArray:
        windows = np.lib.stride_tricks.sliding_window_view(returns, CONTEXT_BARS)[first + 1 - CONTEXT_BARS :]
        made = [
            engine.forecast(windows[begin : begin + _BATCH_ROWS].astype(np.float32), HORIZON_BARS)
            for begin in range(0, len(windows), _BATCH_ROWS)
        ]
        return np.concatenate(made).astype(np.float64)

    return forecast


class _Watch:
    """The monitors of one stream, and who of them has cried so far."""

    def __init__(self, config: DriftStudyConfig) -> None:
        self.bar = 0
        self.cries: dict[Detector, list[int]] = {detector: [] for detector in Detector}
        self.on = dict.fromkeys(Detector, False)
        self.exceeded = {stream: dict.fromkeys(PSI_RULES, 0) for stream in Stream}
        self.checks = dict.fromkeys(Stream, 0)
        self._config = config
        self._drift, self._health = DriftMonitor(config.drift), HealthMonitor(config.health, HORIZON_BARS)
        self._volatility = EwmaVolatility(_VOLATILITY_DECAY)
        self._seen_checks = dict.fromkeys(Stream, 0)
        # The two other rules are held to the same number of checks in a row.
        self._by_rule = {rule: dict.fromkeys(Stream, False) for rule in PSI_RULES}
        self._in_a_row = {rule: dict.fromkeys(Stream, 0) for rule in PSI_RULES}

    def take(self, returns: FloatArray, quantiles: FloatArray) -> None:
        """Take in bars, each with the forecast made after it; the first are too early for one."""
        without = len(returns) - len(quantiles)
        for row, value in enumerate(returns.tolist()):
            known = self._volatility.value
            self._health.observe(self.bar, value, known)
            self._volatility.update(value)
            self._drift.observe(value, value)
            if row >= without:
                made = quantiles[row - without]
                self._health.await_outcome(self.bar, made, self._volatility.value)
                self._drift.await_outcome(made[0])
            self._look()
            self.bar += 1

    def _look(self) -> None:
        for stream, monitor in self._drift.streams.items():
            if monitor.checks != self._seen_checks[stream]:
                self._seen_checks[stream] = monitor.checks
                self._compare(stream)
        now = {rule: any(self._by_rule[rule].values()) for rule in PSI_RULES}
        now[Detector.PSI_BOOTSTRAP] = any(monitor.drifted for monitor in self._drift.streams.values())
        now |= {Detector.ADWIN: self._drift.errors_changed, Detector.HEALTH: self._health.unhealthy}
        for detector, on in now.items():
            if on and not self.on[detector]:
                self.cries[detector].append(self.bar)
            self.on[detector] = on

    def _compare(self, stream: Stream) -> None:
        drift, monitor = self._config.drift, self._drift.streams[stream]
        counts = math.isfinite(monitor.critical)
        self.checks[stream] += counts
        for rule, limit in (
            (Detector.PSI_BOOTSTRAP, monitor.critical),
            (Detector.PSI_INDEPENDENT, independent_critical(drift, monitor.reference)),
            (Detector.PSI_RULE, RULE_OF_THUMB),
        ):
            exceeds = monitor.index > limit
            self.exceeded[stream][rule] += counts and exceeds
            row, was = self._in_a_row[rule], self._by_rule[rule][stream]
            row[stream] = row[stream] + 1 if exceeds is not was else 0
            if row[stream] >= drift.sustained_checks:
                self._by_rule[rule][stream], row[stream] = exceeds, 0


def independent_critical(drift: DriftConfig, reference_bars: int) -> float:
    """What the index of independent data exceeds with the configured significance."""
    return (1 / drift.recent_bars + 1 / reference_bars) * float(_chi_squared(drift.significance))


@functools.cache
def _chi_squared(significance: float) -> float:
    return float(chi2.ppf(1.0 - significance, BINS - 1))


def follow(config: DriftStudyConfig, kind: Kind, number: int, forecasts: Forecasts) -> StreamResult:
    """One stream, undisturbed and in every disturbed way."""
    market = simulate(config, kind, number)
    returns, before = market.returns, config.before
    quantiles = forecasts(returns, CONTEXT_BARS - 1)
    watch = _Watch(config)
    first = before - (CONTEXT_BARS - 1)
    watch.take(returns[:before], quantiles[:first])
    delays = {}
    for disturbance in Disturbance:
        after = copy.deepcopy(watch)
        changed = disturbed(market, disturbance, config, number)[before:]
        if disturbance in OF_MODEL or disturbance is Disturbance.NONE:
            made = spoilt(quantiles, disturbance, first)[first:]
        else:
            made = forecasts(np.concatenate([returns[before - CONTEXT_BARS : before], changed]), CONTEXT_BARS)
        after.take(changed, made)
        delays[str(disturbance)] = {str(detector): _delay(watch, after, detector) for detector in Detector}
        if disturbance is Disturbance.NONE:
            undisturbed = after
    since = watched_from(config)
    return StreamResult(
        alarms={str(detector): [at for at in cries if at >= since] for detector, cries in undisturbed.cries.items()},
        exceeded={
            str(stream): {str(rule): count for rule, count in counts.items()}
            for stream, counts in undisturbed.exceeded.items()
        },
        checks={str(stream): count for stream, count in undisturbed.checks.items()},
        delays=delays,
    )


def _delay(before: _Watch, after: _Watch, detector: Detector) -> int:
    if before.on[detector]:
        return ALREADY
    new = after.cries[detector][len(before.cries[detector]) :]
    return new[0] - before.bar if new else NEVER
