"""Do the weights find the alphas that work? Simulated markets with alphas whose worth is known, beside equal weights.

The market's volatility switches between two states, with the parameters in use in the literature on statistical jump
models; the weights are told the state. An alpha's vote is a persistent noise with a grain of truth about the bars that
follow its fill: positive in good phases, of the other sign in bad ones. The weights are the very class that trades.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from data.errors import OptionError
from regime.signal import VolatilityState
from sage.progress import Progress, Silent
from sage.studies.kept import KeptCells
from sage.weights import GAIN_LIMIT, RISK_AVERSION, ExpertWeights, WeightsConfig

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

METHOD_VERSION = 1

STAY = (0.9979, 0.9880)
VOLATILITY = (0.007759, 0.0174)
"""Of the calm and the turbulent state, a bar (Nystrup, Lindström and Madsen, 2020, and others after them)."""

BARS_PER_YEAR = 252
FILL_BARS = 1
TRADE_RATE = 6e-4
"""Fee and half the spread of a backtest's defaults."""

TARGET_VOLATILITY = 0.01
OUTLOOK_BARS = 8
PERSISTENCE = 0.94


class Kind(StrEnum):
    """What the alphas of a market are worth."""

    ALTERNATING = "alternating"
    NOISE = "noise"
    BY_VOLATILITY = "by volatility"
    STEADY = "steady"


SAID = {
    Kind.ALTERNATING: "each alpha good and bad in turn, in phases of its own",
    Kind.NOISE: "no alpha knows anything",
    Kind.BY_VOLATILITY: "half of the alphas good in calm bars and bad in turbulent ones, the others the reverse",
    Kind.STEADY: "all alphas equally good all the time: what leaning on some of them costs",
}


@dataclass(frozen=True)
class EnsembleStudyConfig:
    """What is simulated.

    ``correlation`` is that of a good alpha's vote, before it is squashed, with the mean of the next bars. Phases
    last between ``phase_bars`` bars. ``out`` keeps finished markets for a rerun.
    """

    markets: int = 100
    bars: int = 8_000
    alphas: int = 5
    correlation: float = 0.10
    phase_bars: tuple[int, int] = (750, 2_500)
    seed: int = 7
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    out: Path | None = None


@dataclass(frozen=True)
class MarketResult:
    """Annual Sharpe ratios on one market, net of costs, and what the weights cost there.

    ``best`` is the alpha that is best in hindsight, ``mean`` the mean of all alphas alone. ``regret_share`` is the
    largest of the regrets over their bounds at the end; ``floor_cost`` and ``floor_told`` are the extra loss of floored
    weights as measured, and as the floor times the sum of what each alpha lost beyond the best; both a bar.
    ``heaviest`` is the mean weight of the heaviest alpha.
    """

    ensemble: float
    equal: float
    best: float
    mean: float
    heaviest: float
    regret_share: float
    floor_cost: float
    floor_told: float


@dataclass(frozen=True)
class EnsembleStudy:
    """All markets of all kinds."""

    config: EnsembleStudyConfig
    results: dict[Kind, list[MarketResult]]
    reused: int = 0


@dataclass(frozen=True)
class Simulated:
    """One market: ``state`` 0 or 1, ``shocks`` of unit variance, ``volatility`` and ``votes`` (bars, alphas)."""

    state: IntArray
    shocks: FloatArray
    volatility: FloatArray
    votes: FloatArray


def study(config: EnsembleStudyConfig, progress: Progress | None = None) -> EnsembleStudy:
    """Simulate every market of every kind. Raises OptionError where the configuration makes no sense."""
    check(config)
    show = progress or Silent()
    settings: dict[str, Any] = dataclasses.asdict(dataclasses.replace(config, out=None, markets=0))
    settings |= {"method": METHOD_VERSION, "risk_aversion": RISK_AVERSION, "gain_limit": GAIN_LIMIT}
    kept = KeptCells(config.out, "ensemble", settings)
    show.stage("simulating markets", len(Kind) * config.markets)
    results: dict[Kind, list[MarketResult]] = {kind: [] for kind in Kind}
    for kind in Kind:
        for number in range(config.markets):
            key = f"{kind} {number}"
            cell = kept.get(key)
            if cell is None:
                cell = dataclasses.asdict(trade(simulate(config, kind, number), config.weights))
                kept.put(key, cell)
            results[kind].append(MarketResult(**cell))
            show.advance(1, key)
    return EnsembleStudy(config, results, kept.reused)


def check(config: EnsembleStudyConfig) -> None:
    """Refuse what makes no sense. Raises OptionError."""
    least, most = config.phase_bars
    checks = (
        (2 <= config.markets <= 100_000, "--markets must lie between 2 and 100000"),
        (config.bars >= 500, "--bars must be 500 or more"),
        (2 <= config.alphas <= 100, "--alphas must lie between 2 and 100"),
        (config.weights.floor * config.alphas <= 1, "--floor is too much for so many alphas"),
        (0 < config.correlation < 1, "--correlation must lie between 0 and 1"),
        (1 <= least < most, "--phase-bars must be two numbers, the smaller one first"),
        (config.weights.memory_bars >= 1, "--memory must be 1 bar or more"),
        (config.seed >= 0, "--seed must not be negative"),
    )  # fmt: skip
    for holds, message in checks:
        if not holds:
            raise OptionError(message)


def simulate(config: EnsembleStudyConfig, kind: Kind, number: int) -> Simulated:
    """Market ``number`` of a kind; markets of the same number differ in nothing but the worth of their alphas."""
    bars, alphas = config.bars, config.alphas
    rng = np.random.default_rng([config.seed, number])
    leaves = rng.random(bars)
    state = np.zeros(bars, dtype=np.int64)
    for bar in range(1, bars):
        before = int(state[bar - 1])
        state[bar] = before if leaves[bar] < STAY[before] else 1 - before
    shocks = rng.standard_normal(bars)
    innovations = math.sqrt(1.0 - PERSISTENCE**2) * rng.standard_normal((bars, alphas))
    innovations[0] /= math.sqrt(1.0 - PERSISTENCE**2)
    noise = lfilter([1.0], [1.0, -PERSISTENCE], innovations, axis=0)
    worth = _worth(kind, state, config, rng)
    # What a vote may know of: the bars that its position is held over, from its fill on.
    later = np.concatenate([shocks[1 + FILL_BARS :], np.zeros(OUTLOOK_BARS + FILL_BARS)])
    ahead = np.convolve(later, np.ones(OUTLOOK_BARS) / math.sqrt(OUTLOOK_BARS), "valid")[:bars]
    truth = config.correlation * worth * ahead[:, None]
    votes = np.tanh(0.7 * (truth + math.sqrt(1.0 - config.correlation**2) * noise))
    return Simulated(state, shocks, np.array(VOLATILITY)[state], votes)


def _worth(kind: Kind, state: IntArray, config: EnsembleStudyConfig, rng: np.random.Generator) -> FloatArray:
    """1 where an alpha is good, -1 where it is bad, 0 where it knows nothing; shape (bars, alphas)."""
    bars, alphas = config.bars, config.alphas
    match kind:
        case Kind.NOISE:
            return np.zeros((bars, alphas))
        case Kind.STEADY:
            return np.ones((bars, alphas))
        case Kind.BY_VOLATILITY:
            return np.where((state[:, None] == 1) == (np.arange(alphas) % 2 == 1), 1.0, -1.0)
        case Kind.ALTERNATING:
            worth = np.empty((bars, alphas))
            for alpha in range(alphas):
                good = 1.0 if rng.random() < 0.5 else -1.0
                at = -int(rng.integers(config.phase_bars[0]))
                while at < bars:
                    end = at + int(rng.integers(*config.phase_bars))
                    worth[max(at, 0) : max(end, 0), alpha] = good
                    at, good = end, -good
            return worth


def trade(market: Simulated, config: WeightsConfig) -> MarketResult:
    """Trade a market bar by bar, the weights learning as they do in a backtest."""
    bars, alphas = market.votes.shape
    weights, awake = ExpertWeights(alphas, config), np.ones(alphas, dtype=bool)
    names = [str(VolatilityState.LOW), str(VolatilityState.HIGH)]
    used = np.empty((bars, alphas))
    held = np.zeros(alphas)
    regimes = [names[state] for state in market.state.tolist()]
    changes = market.shocks * market.volatility
    for bar in range(bars):
        if bar > FILL_BARS:
            positions = market.votes[bar - 1 - FILL_BARS]
            gains = (positions * changes[bar] - TRADE_RATE * np.abs(positions - held)) / market.volatility[bar - 1]
            held = positions
            weights.learn(regimes[bar - 1], gains, awake)
        used[bar] = weights.weights(regimes[bar], awake)
    alone = [_sharpe(market, market.votes[:, alpha]) for alpha in range(alphas)]
    reports = weights.report()
    rounds = sum(report.rounds for report in reports)
    return MarketResult(
        ensemble=_sharpe(market, (used * market.votes).sum(axis=1)),
        equal=_sharpe(market, market.votes.mean(axis=1)),
        best=max(alone),
        mean=float(np.mean(alone)),
        heaviest=float(used.max(axis=1).mean()),
        regret_share=max((report.regret / report.bound for report in reports if report.bound), default=0.0),
        floor_cost=sum(report.floored_lost - report.hedge_lost for report in reports) / max(rounds, 1),
        floor_told=sum(report.floor_cost for report in reports) / max(rounds, 1),
    )


def _sharpe(market: Simulated, conviction: FloatArray) -> float:
    """Annual Sharpe ratio of a position of so many volatility targets, filled a bar later, net of costs."""
    exposure = (TARGET_VOLATILITY * conviction / market.volatility)[: -1 - FILL_BARS]
    costs = TRADE_RATE * np.abs(np.diff(exposure, prepend=0.0))
    earned = exposure * (market.shocks * market.volatility)[1 + FILL_BARS :] - costs
    return float(earned.mean() / earned.std(ddof=1) * math.sqrt(BARS_PER_YEAR))
