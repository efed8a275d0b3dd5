"""How much each alpha counts: AdaHedge with a memory, a floor, and a record of its own for each volatility state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

GAIN_LIMIT = 4.0
"""A bar's profit counts up to so many standard deviations: one jump should not settle which alpha is best."""

RISK_AVERSION = 0.3
"""What a squared profit, in variances of the instrument, takes off twice; chosen on simulated markets."""

CAUTION = 2.0
"""AdaHedge's learning rate is so many times smaller than the paper's; chosen on simulated markets."""


class AdaHedge:
    """Weights of experts whose regret is bounded, whatever the losses (de Rooij et al., 2014, JMLR 15).

    Its learning rate is ``c`` over the cumulative mixability gap, where the paper has c = ln K and here
    c = ln(K) / ``caution``: slower, for a bound that grows little (6 % at 2). It needs to know neither how many rounds
    there will be nor the range of the losses, and that makes a memory come for free: to discount the past by ``decay``
    a round is to play AdaHedge, unchanged, on losses that grow by ``1 / decay`` a round. Its theorem then reads, for
    every expert k and at every round T, with d = ``decay``, h_t what the weights lose in round t, v_t the variance of
    the losses under them and s the largest range of losses, each discounted to T,

        sum_t d^(T-t) (h_t - l_tk)  <=  (1 + ln(K) / c) (sqrt(c V) + (2/3 c + 1) s),     V = sum_t d^(2(T-t)) v_t

    which for d = 1 and c = ln K is the paper's Theorem 6. What it says where the best expert changes: little is lost
    beside the best of the last 1 / (1 - d) rounds or so, not beside the best of all time.

    Parameters
    ----------
    experts
        How many.
    decay
        In (0, 1]; 1 never forgets.
    caution
        1 for the paper's learning rate, more for a smaller one.
    """

    def __init__(self, experts: int, decay: float = 1.0, caution: float = 1.0) -> None:
        if experts < 1 or not 0.0 < decay <= 1.0 or not caution >= 1.0:
            raise ValueError(f"{experts} experts, a decay of {decay} and a caution of {caution}")
        self._decay = decay
        self._rate_times_gap = math.log(experts) / caution
        self._losses = np.zeros(experts)
        self._gap = 0.0
        self._regrets = np.zeros(experts)
        self._variance = 0.0
        self._range = 0.0
        self._weights, self._mix_loss = self._mixed(self._losses, 0.0)
        self.rounds = 0

    def weights(self) -> FloatArray:
        """The weights of the coming round, shape (experts,): none negative, sum 1."""
        return self._weights.copy()

    def update(self, losses: FloatArray) -> float:
        """Learn the losses of a round, shape (experts,); gives back what the weights lost."""
        decay, weights = self._decay, self._weights
        lost = float(weights @ losses)
        losses_before, gap_before = decay * self._losses, decay * self._gap
        after = self._mixed(losses_before + losses, gap_before)[1]
        self._losses = losses_before + losses
        # Rounding may leave a gap a hair below 0, which the theory forbids.
        self._gap = gap_before + max(0.0, lost - (after - decay * self._mix_loss))
        self._regrets = decay * self._regrets + (lost - losses)
        self._variance = decay**2 * self._variance + float(weights @ (losses - lost) ** 2)
        self._range = max(decay * self._range, float(losses.max() - losses.min()))
        self._weights, self._mix_loss = self._mixed(self._losses, self._gap)
        self.rounds += 1
        return lost

    @property
    def regret(self) -> float:
        """What was lost beyond the expert that is best by its discounted losses."""
        return float(self._regrets.max())

    @property
    def bound(self) -> float:
        """What :attr:`regret` cannot exceed."""
        c, log_experts = self._rate_times_gap, math.log(len(self._losses))
        if c == 0.0:
            return 0.0  # a single expert is never regretted
        return (1.0 + log_experts / c) * (math.sqrt(c * self._variance) + (2.0 / 3.0 * c + 1.0) * self._range)

    def _mixed(self, losses: FloatArray, gap: float) -> tuple[FloatArray, float]:
        """Weights after these losses, and their mix loss."""
        least = float(losses.min())
        rate = self._rate_times_gap / gap if gap > 0.0 else math.inf
        if not 0.0 < rate < math.inf:
            best = (losses == least).astype(np.float64)
            return best / best.sum(), least
        unnormalised = np.exp(-rate * (losses - least))
        total = float(unnormalised.sum())
        return unnormalised / total, least - math.log(total / len(losses)) / rate


def among(weights: FloatArray, available: BoolArray) -> FloatArray:
    """The weights of those available, sum 1, and 0 for the others; all equal where theirs have vanished."""
    kept = np.where(available, weights, 0.0)
    total = float(kept.sum())
    shares: FloatArray = kept / total if total > 1e-12 else available / available.sum()
    return shares


def losses_of(gains: FloatArray, weights: FloatArray) -> FloatArray:
    """Losses in [0, 1] of alphas that gained so much in a bar, shape (alphas,), in units of the bar's volatility.

    They are the slopes, at these weights, of a utility that is the portfolio's gain less half of
    :data:`RISK_AVERSION` times its square: an alpha is worth what it adds to the others. As that utility is concave,
    regret in these losses bounds the regret in it, beside every fixed mixture of the alphas, equal weights among them
    (Zinkevich, 2003).
    """
    kept = np.clip(gains, -GAIN_LIMIT, GAIN_LIMIT)
    slopes = kept * (1.0 - RISK_AVERSION * float(weights @ kept))
    losses: FloatArray = 0.5 - slopes / (2.0 * GAIN_LIMIT * (1.0 + RISK_AVERSION * GAIN_LIMIT))
    return losses


@dataclass(frozen=True)
class WeightsConfig:
    """How weights are found.

    ``adaptive`` weights follow what each alpha earned lately, ``equal`` ones are all the same. Each alpha that is
    available has ``floor`` at least. ``memory_bars`` is how long a bar counts (its weight in the record falls to 1/e
    by then); with ``by_volatility`` there is a record for each volatility state, and bars of the other state do not
    age it: what worked in the last storm is known when the next one comes.
    """

    kind: Literal["adaptive", "equal"] = "adaptive"
    floor: float = 0.05
    memory_bars: int = 750
    by_volatility: bool = True


@dataclass
class _Record:
    """AdaHedge in one regime, with what its weights and each alpha lost in all, not discounted."""

    hedge: AdaHedge
    alphas_lost: FloatArray
    hedge_lost: float = 0.0
    floored_lost: float = 0.0


@dataclass(frozen=True)
class WeightsReport:
    """What the weights of one regime cost, in units of loss.

    ``regret`` and ``bound`` are AdaHedge's: before the floor, and with its memory. ``floor_cost`` is the floor times
    the sum of what each alpha lost beyond the best one; ``floored_lost`` less ``hedge_lost`` is what the floor cost
    beside AdaHedge's own weights. These three are sums over all rounds.
    """

    regime: str
    rounds: int
    regret: float
    bound: float
    hedge_lost: float
    floored_lost: float
    floor_cost: float


@dataclass
class ExpertWeights:
    """Weights of the alphas, by regime; any thread may ask or teach at any time.

    Parameters
    ----------
    alphas
        How many.
    config
        How weights are found.

    Raises
    ------
    ValueError
        If the floors of so many alphas come to more than 1.
    """

    alphas: int
    config: WeightsConfig = field(default_factory=WeightsConfig)

    def __post_init__(self) -> None:
        if not 0.0 <= self.config.floor * self.alphas <= 1.0:
            raise ValueError(f"a floor of {self.config.floor:g} for each of {self.alphas} alphas is more than there is")
        self._lock = Lock()
        self._records: dict[str, _Record] = {}

    def weights(self, regime: str, available: BoolArray) -> FloatArray:
        """Weights of this bar, shape (alphas,).

        Those available have the floor at least and sum to 1; the others have 0. With none available all are 0.
        """
        if not available.any():
            return np.zeros(self.alphas)
        if self.config.kind == "equal":
            return among(np.ones(self.alphas), available)
        with self._lock:
            learned = self._record(regime).hedge.weights()
        return self._floored(learned, available)

    def learn(self, regime: str, gains: FloatArray, awake: BoolArray) -> None:
        """Take in what each alpha gained in a bar of this regime, in units of its volatility.

        Alphas that were not awake are taken to have lost what the others did by their weights (Freund et al., 1997):
        that leaves the shares of the others as they are, and the regret beside an alpha is that of the bars in which
        it was awake.

        Raises
        ------
        ValueError
            If a gain that counts is not finite: it would spoil the weights for good.
        """
        if not bool(np.isfinite(gains[awake]).all()):
            raise ValueError("a gain is not finite")
        if self.config.kind == "equal" or not awake.any():
            return
        with self._lock:
            record = self._record(regime)
            learned = record.hedge.weights()
            floored = self._floored(learned, awake)
            losses = losses_of(np.where(awake, gains, 0.0), floored)
            if not awake.all():
                losses = np.where(awake, losses, float(among(learned, awake) @ losses))
            record.floored_lost += float(floored @ losses)
            record.alphas_lost += losses
            record.hedge_lost += record.hedge.update(losses)

    def report(self) -> Sequence[WeightsReport]:
        """What each regime's weights cost so far."""
        with self._lock:
            return [
                WeightsReport(
                    regime,
                    record.hedge.rounds,
                    record.hedge.regret,
                    record.hedge.bound,
                    record.hedge_lost,
                    record.floored_lost,
                    self.config.floor * float((record.alphas_lost - record.alphas_lost.min()).sum()),
                )
                for regime, record in sorted(self._records.items())
            ]

    def _floored(self, learned: FloatArray, available: BoolArray) -> FloatArray:
        floor = self.config.floor
        floored: FloatArray = floor * available + (1.0 - floor * int(available.sum())) * among(learned, available)
        return floored

    def _record(self, regime: str) -> _Record:
        regime = regime if self.config.by_volatility else "all"
        if regime not in self._records:
            decay = math.exp(-1.0 / self.config.memory_bars)
            self._records[regime] = _Record(AdaHedge(self.alphas, decay, CAUTION), np.zeros(self.alphas))
        return self._records[regime]
