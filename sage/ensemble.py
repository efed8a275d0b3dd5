"""The ensemble: asks every alpha, weighs the votes by what each earned lately, and says how far they disagree.

Knows no NT types. What an alpha earned is counted as it would have been traded: a vote is a position of so many
volatility targets, entered ``fill_bars`` after it was given, paying costs on every change, in units of the volatility
known at the time. Votes for short positions count where none may be opened too: there they cancel what others
would buy, and a model is judged on all that it says. Weights that follow the newest bar are thus one fill younger
than those whose regret is bounded, which is the price of orders that take a bar to fill.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from regime.importing import RAISED
from regime.signal import Level, Signal
from regime.window import BarInput, RingBuffer
from sage.models.alpha import WINDOW_BARS, AlphaModel, AlphaView, LearningAlpha, Outcome, problem_with_alpha
from sage.models.built_in import BUILT_IN
from sage.percentiles import Latencies
from sage.weights import ExpertWeights, WeightsConfig

FloatArray = NDArray[np.float64]


class Absence(StrEnum):
    """Why an alpha has no vote in a bar."""

    SHORT_HISTORY = "short history"
    NO_MODEL = "no model"
    RAISED = "raised"
    NOT_A_NUMBER = "not a number"
    OUT_OF_BOUNDS = "out of bounds"
    SLOW = "slow"

    @property
    def is_fault(self) -> bool:
        """True where a vote was dropped, False where none was due."""
        return self not in {Absence.SHORT_HISTORY, Absence.NO_MODEL}


@dataclass(frozen=True)
class Poll:
    """One bar's votes and weights, in the order of the alphas.

    ``votes`` are NaN and ``weights`` 0 where an alpha is absent, and ``absent`` says why (None where it voted).
    ``conviction`` is the weighted mean of the votes, in [-1, 1], and NaN where nobody voted; ``disagreement`` their
    weighted standard deviation, in [0, 1].
    """

    ts_ns: int
    regime: str
    conviction: float
    disagreement: float
    votes: tuple[float, ...]
    weights: tuple[float, ...]
    absent: tuple[Absence | None, ...]


@dataclass(frozen=True)
class EnsembleConfig:
    """Which alphas vote, how their weights are found, and how long a vote may take.

    ``vote_limit_ms`` counts only in runs with a deadline; 0 is no limit. A vote cannot be interrupted: one that comes
    too late is dropped.
    """

    alphas: tuple[str, ...] = BUILT_IN
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    vote_limit_ms: float = 5.0


@dataclass(frozen=True)
class EnsembleSettings:
    """What an ensemble must know of the run.

    ``fill_bars`` pass between a decision and its fill, ``trade_rate`` says what share of its value a trade
    at a time (ns) costs.
    ``vote_limit_s`` is the time a vote may take, 0 for any. Where ``slow_votes`` is given, (ts_ns, name) of the
    votes that came too late in an earlier run, these are dropped in the place of what the stopwatch says.
    """

    horizon_bars: int
    fill_bars: int
    trade_rate: Callable[[int], float]
    weights: WeightsConfig
    vote_limit_s: float = 0.0
    slow_votes: Collection[tuple[int, str]] | None = None


class Ensemble:
    """Asks the alphas, bar by bar.

    Parameters
    ----------
    alphas
        In the order of all results.
    settings
        What to know of the run.
    stopwatch
        Seconds that pass, for the time that a vote takes.

    Raises
    ------
    ValueError
        If there is no alpha, one lacks the protocol, two share a name, or the floor is too high for so many.
    """

    def __init__(
        self, alphas: Sequence[AlphaModel], settings: EnsembleSettings, stopwatch: Callable[[], float]
    ) -> None:
        if not alphas:
            raise ValueError("an ensemble needs one alpha at least")
        for alpha in alphas:
            if (problem := problem_with_alpha(alpha)) is not None:
                raise ValueError(problem)
        names = [alpha.name for alpha in alphas]
        if len(set(names)) < len(names):
            raise ValueError(f"two alphas have the same name: {', '.join(names)}")
        self.names = tuple(names)
        self.weights = ExpertWeights(len(alphas), settings.weights)
        self.polls: list[Poll] = []
        self.latencies = {name: Latencies() for name in names}
        self.faults: dict[str, Counter[str]] = {name: Counter() for name in names}
        self.first_errors: dict[str, str] = {}
        self._alphas = tuple(alphas)
        # Asked once: looking a protocol up takes longer than a vote.
        self._learners = [
            (column, alpha.name, alpha) for column, alpha in enumerate(alphas) if isinstance(alpha, LearningAlpha)
        ]
        self._settings = settings
        self._stopwatch = stopwatch
        self._columns = tuple(RingBuffer(WINDOW_BARS) for _ in range(5))
        self._closes: deque[float] = deque(maxlen=settings.horizon_bars + 1)
        self._recent: deque[Poll] = deque(maxlen=max(settings.horizon_bars, settings.fill_bars + 1) + 1)
        self._positions = np.zeros(len(alphas))
        self._volatility = 0.0

    def step(self, bar: BarInput, signal: Signal) -> Poll:
        """Learn what this bar made of earlier votes, then vote anew."""
        for column, value in zip(self._columns, (bar.open, bar.high, bar.low, bar.close, bar.volume), strict=True):
            column.append(value)
        self._closes.append(bar.close)
        self._judge()
        self._tell_outcomes()
        poll = self._poll(signal)
        self._volatility = max(signal.forecast_volatility, signal.realised_volatility)
        self._recent.append(poll)
        self.polls.append(poll)
        return poll

    def _judge(self) -> None:
        """Let the weights learn what each alpha's position made of this bar."""
        fill_bars = self._settings.fill_bars
        if len(self._recent) <= fill_bars or not self._volatility > 0.0:
            return
        # In the order of time: a vote, its fill, this bar. The weights that are judged are those of the bar before.
        voted = self._recent[-1 - fill_bars]
        votes = np.array(voted.votes)
        awake = ~np.isnan(votes)
        positions = np.where(awake, votes, 0.0)
        moved = np.abs(positions - self._positions)
        change = math.log(self._closes[-1] / self._closes[-2])
        gains = (positions * change - self._settings.trade_rate(self._recent[-1].ts_ns) * moved) / self._volatility
        # One that is absent holds what it held, and pays when it is back.
        self._positions = np.where(awake, positions, self._positions)
        self.weights.learn(self._recent[-1].regime, gains, awake)

    def _tell_outcomes(self) -> None:
        """Tell the learning ones what became of the votes whose horizon ends here."""
        horizon = self._settings.horizon_bars
        if len(self._closes) <= horizon:
            return
        ended = self._recent[-horizon]
        log_return = math.log(self._closes[-1] / self._closes[0])
        for column, name, alpha in self._learners:
            try:
                alpha.learn(Outcome(ended.ts_ns, ended.votes[column], log_return))
            except RAISED as error:
                self._note(name, f"learning {Absence.RAISED}", error)

    def _poll(self, signal: Signal) -> Poll:
        opens, highs, lows, closes, volumes = (_read_only(column.view()) for column in self._columns)
        view = AlphaView(opens, highs, lows, closes, volumes, signal, self._settings.horizon_bars)
        answers = [self._ask(name, alpha, view) for name, alpha in zip(self.names, self._alphas, strict=True)]
        votes = np.array([math.nan if isinstance(answer, Absence) else answer for answer in answers])
        available = ~np.isnan(votes)
        regime = str(signal.volatility_state)
        weights = self.weights.weights(regime, available)
        conviction, disagreement = combined(votes, weights)
        return Poll(
            signal.ts_event,
            regime,
            conviction,
            disagreement,
            tuple(votes.tolist()),
            tuple(weights.tolist()),
            tuple(answer if isinstance(answer, Absence) else None for answer in answers),
        )

    def _ask(self, name: str, alpha: AlphaModel, view: AlphaView) -> float | Absence:
        if len(view.closes) < alpha.min_bars:
            return Absence.SHORT_HISTORY
        if alpha.needs_model and view.signal.level > Level.BASIC:
            return Absence.NO_MODEL
        began = self._stopwatch()
        try:
            vote = float(alpha.vote(view))
        except RAISED as error:
            self._note(name, Absence.RAISED, error)
            return Absence.RAISED
        finally:
            took_s = self._stopwatch() - began
            self.latencies[name].record(took_s)
        absence = self._problem_with(vote, took_s, (view.signal.ts_event, name))
        if absence is None:
            return vote
        self._note(name, absence, f"vote {vote} after {1e3 * took_s:.3f} ms")
        return absence

    def _problem_with(self, vote: float, took_s: float, key: tuple[int, str]) -> Absence | None:
        known, limit_s = self._settings.slow_votes, self._settings.vote_limit_s
        if (0.0 < limit_s < took_s) if known is None else (key in known):
            return Absence.SLOW
        if math.isnan(vote):
            return Absence.NOT_A_NUMBER
        return Absence.OUT_OF_BOUNDS if not -1.0 <= vote <= 1.0 else None

    def _note(self, name: str, what: str, why: object) -> None:
        self.faults[name][what] += 1
        told = f"{type(why).__name__}: {why}" if isinstance(why, BaseException) else str(why)
        self.first_errors.setdefault(name, f"{what}: {told}")


def combined(votes: FloatArray, weights: FloatArray) -> tuple[float, float]:
    """Weighted mean and standard deviation of the votes that have a weight; NaN and 1 where there is none."""
    counted = weights > 0.0
    if not counted.any():
        return math.nan, 1.0
    shares, said = weights[counted], votes[counted]
    mean = float(shares @ said)
    # Rounding must not take a unanimous vote of 1 out of its bounds.
    spread = math.sqrt(max(0.0, float(shares @ (said - mean) ** 2)))
    return min(max(mean, -1.0), 1.0), min(spread, 1.0)


def _read_only(values: FloatArray) -> FloatArray:
    values.flags.writeable = False
    return values
