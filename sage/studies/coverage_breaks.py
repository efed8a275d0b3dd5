"""Simulated breaks of volatility: calm and wild stretches in turn, and what intervals do in the bars after each."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from data.bars import Bars
from regime.window import FloatArray
from sage.studies.coverage_measures import IntArray, Walk, covered

AFTER_BARS = 60
CALM_BEFORE_BARS = 600
"""Calm bars after the warm-up and before the first break."""

BAR_SECONDS = 86_400
CALM_VOLATILITY = 0.01
DEGREES_OF_FREEDOM = 5
PATH_STEPS = 16
"""Prices within a bar, from which its high and low come."""

_START_NS = 946_684_800_000_000_000


@dataclass(frozen=True)
class Kind:
    """How many times as wild, and whether with Student's t(5) in the place of the normal distribution."""

    factor: float
    heavy: bool

    @property
    def name(self) -> str:
        """For people."""
        return f"x{self.factor:g} {'t(5)' if self.heavy else 'Gaussian'}"


KINDS = tuple(Kind(factor, heavy) for heavy, factor in itertools.product((False, True), (2.0, 3.0, 4.0)))


@dataclass(frozen=True)
class BreakConfig:
    """How breaks come about.

    ``number`` of them each way and of each kind: a calm stretch of ``calm_bars`` (from, to), then ``wild_bars``
    of them. With ``close_only`` a bar's high and low tell nothing that its return does not.
    """

    number: int = 70
    calm_bars: tuple[int, int] = (250, 450)
    wild_bars: int = 150
    close_only: bool = False


@dataclass(frozen=True)
class SimulatedBreaks:
    """Bars of a day each, without any season, and the volatility of each bar's return, shape (bars,)."""

    bars: Bars
    volatility: FloatArray
    bar_seconds: int = BAR_SECONDS


def simulate_breaks(kind: Kind, config: BreakConfig, warm_up_bars: int, seed: int) -> SimulatedBreaks:
    """One long series of a kind; seeds of kinds differ."""
    rng = np.random.default_rng([seed, int(kind.factor), int(kind.heavy)])
    parts = [np.ones(warm_up_bars + CALM_BEFORE_BARS)]
    for _ in range(config.number):
        parts += [np.full(config.wild_bars, kind.factor), np.ones(int(rng.integers(*config.calm_bars)))]
    volatility = CALM_VOLATILITY * np.concatenate(parts)
    # Within a bar the volatility is one; where it is drawn anew for each bar, returns have heavy tails.
    freedom = DEGREES_OF_FREEDOM
    drawn = np.sqrt((freedom - 2) / rng.chisquare(freedom, len(volatility))) if kind.heavy else np.ones(len(volatility))
    steps = rng.standard_normal((len(volatility), PATH_STEPS)) * (volatility * drawn / np.sqrt(PATH_STEPS))[:, None]
    paths = np.cumsum(steps, axis=1)
    returns = paths[:, -1]
    closes = np.cumsum(returns)
    before = closes - returns
    inner = paths[:, -1:] if config.close_only else paths
    highs = before + np.maximum(inner.max(axis=1), 0.0)
    lows = before + np.minimum(inner.min(axis=1), 0.0)
    stamps = _START_NS + np.arange(1, len(closes) + 1) * BAR_SECONDS * 1_000_000_000
    opened, high, low, close = (100.0 * np.exp(values) for values in (before, highs, lows, closes))
    # Rounding of the exponential must not put a close outside of its own bar.
    high, low = np.maximum(high, np.maximum(opened, close)), np.minimum(low, np.minimum(opened, close))
    return SimulatedBreaks(Bars(stamps, opened, high, low, close, np.ones(len(closes))), volatility)


@dataclass(frozen=True)
class AfterBreak:
    """Coverage and width over the oracle's by bar since the break, each of shape (60,), upwards and downwards.

    ``number`` is that of breaks, the same each way up to one; ``coverage`` that of all bars after the warm-up.
    """

    kind: str
    number: tuple[int, int]
    covered: tuple[FloatArray, FloatArray]
    width: tuple[FloatArray, FloatArray]
    coverage: float

    @classmethod
    def of(cls, cell: dict[str, Any]) -> AfterBreak:
        """Back from JSON."""
        covered_up, covered_down = (np.array(values) for values in cell["covered"])
        width_up, width_down = (np.array(values) for values in cell["width"])
        up, down = cell["number"]
        return cls(cell["kind"], (up, down), (covered_up, covered_down), (width_up, width_down), cell["coverage"])


def after_breaks(
    kind: Kind, simulated: SimulatedBreaks, walk: Walk, miscoverage: float, warm_up_bars: int
) -> dict[str, Any]:
    """An :class:`AfterBreak`, plain enough for JSON. The oracle knows each bar's volatility and the distribution."""
    quantile = 1.0 - miscoverage / 2
    freedom = DEGREES_OF_FREEDOM
    unit = stats.t.ppf(quantile, freedom) * np.sqrt((freedom - 2) / freedom) if kind.heavy else stats.norm.ppf(quantile)
    held, _ = covered(walk, 1)
    # The interval said at a bar is about the next one.
    held, width = held[:-1].astype(float), (walk.highs - walk.lows)[:-1, 0]
    over = width / (2.0 * unit * simulated.volatility[1:])
    change = np.diff(simulated.volatility)
    found: dict[str, list[Any]] = {"number": [], "covered": [], "width": []}
    for breaks in (np.flatnonzero(change > 0), np.flatnonzero(change < 0)):
        at = _bars_after(breaks, len(held))
        found["number"].append(len(at))
        found["covered"].append(held[at].mean(axis=0).tolist())
        found["width"].append(over[at].mean(axis=0).tolist())
    return {"kind": kind.name, "coverage": float(held[warm_up_bars - 1 :].mean())} | found


def _bars_after(breaks: IntArray, bars: int) -> IntArray:
    whole = breaks[breaks + AFTER_BARS <= bars]
    return np.asarray(whole[:, None] + np.arange(AFTER_BARS))


def pooled(found: Sequence[AfterBreak], way: int) -> tuple[float, float]:
    """Coverage and mean width over the oracle's after all breaks one way (0 up, 1 down)."""
    weights = np.array([after.number[way] for after in found], dtype=np.float64)
    held = np.array([after.covered[way].mean() for after in found])
    width = np.array([after.width[way].mean() for after in found])
    return float(np.average(held, weights=weights)), float(np.average(width, weights=weights))
