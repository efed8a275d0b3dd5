"""Has what the model sees, or how it errs, become another thing than it was?

Streams of numbers, one a bar, are compared with their own past: returns over their volatility, the size of returns,
products of successive returns, and where outcomes fall in their forecasts. The measure is the population stability
index of deciles (PSI); what of it is too much depends on the sizes of the samples and on how long bars remember, so the
critical value comes from a block bootstrap of the reference, and the rule of thumb 0.1 is reported beside it at most.
ADWIN (Bifet and Gavalda, 2007; by river) watches how far outcomes fall from the middle of their forecasts.

Sources: circular blocks, Politis and Romano (1992); their length, Politis and White (2004) with Patton (2009); the
index under independence, Yurdakul (2018), Statistical properties of population stability index.
"""

from __future__ import annotations

import math
from enum import StrEnum
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from river.drift import ADWIN

from regime.classifier import EwmaVolatility
from regime.config import DriftConfig
from regime.forecast import QUANTILE_LEVELS, FloatArray
from regime.window import RingBuffer

IntArray = NDArray[np.int64]

RULE_OF_THUMB = 0.1
BINS = 10

_VOLATILITY_DECAY = 0.94
_REPLICATIONS = 300
_SEED = 11
_LEAST_BLOCK_BARS = 25
_LEAST_BLOCKS = 20
"""A reference of fewer blocks has not seen enough to say what is usual: then nothing is too much."""

_BLOCK_FACTOR = 2.0
"""Rule-of-thumb block lengths suit means; an index sums the squares of ten of them, and errs upwards with blocks that
are too short. Chosen on simulated GARCH and regime-switching streams."""


class Stream(StrEnum):
    """What is watched."""

    RETURNS = "returns"
    VOLATILITY = "volatility"
    DEPENDENCE = "dependence"
    ERRORS = "errors"


def decile_edges(reference: FloatArray) -> FloatArray:
    """Inner edges of the bins, observations themselves; fewer than nine where many are equal."""
    ordered = np.sort(reference)
    return np.unique(ordered[np.arange(1, BINS) * len(ordered) // BINS])


def counts_in(edges: FloatArray, values: FloatArray) -> IntArray:
    """How many values each bin holds, shape (len(edges) + 1,)."""
    return np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)


def psi(first: NDArray[np.number], second: NDArray[np.number]) -> FloatArray:
    """Population stability index of two samples of the same bins: the sum of (p - q) log(p / q).

    Parameters
    ----------
    first, second
        Counts, the last axis the bins'. Half an observation is added to each, so that an empty bin is finite.
    """
    p, q = (
        (counts + 0.5) / (counts.sum(axis=-1, keepdims=True) + 0.5 * counts.shape[-1]) for counts in (first, second)
    )
    return np.asarray(((p - q) * np.log(p / q)).sum(axis=-1))


def block_length(cells: IntArray) -> float:
    """How long blocks should be for the dependence of a sample, after Politis and White's rule.

    Both the cells and their distance from the middle count: returns remember their size and not their sign.
    """
    folded = np.abs(cells - cells.mean())
    return max(_rule_of_politis_and_white(np.asarray(values, dtype=np.float64)) for values in (cells, folded))


def _rule_of_politis_and_white(values: FloatArray) -> float:
    count = len(values)
    centred = values - values.mean()
    spectrum = np.fft.rfft(centred, 2 * count)
    covariances = np.fft.irfft(spectrum * np.conj(spectrum))[: count // 3] / count
    if not covariances[0] > 0:
        return 1.0
    in_a_row = max(5, math.ceil(math.sqrt(math.log10(count))))
    limit = 2.0 * math.sqrt(math.log10(count) / count) * covariances[0]
    large = np.flatnonzero(np.abs(covariances[1:]) >= limit) + 1
    # The last lag before a run of so many that are as good as none.
    gaps = np.flatnonzero(np.diff(np.concatenate([[0], large, [len(covariances) + in_a_row]])) > in_a_row)
    last = int(np.concatenate([[0], large])[gaps[0]])
    lags = np.arange(1, min(max(2 * last, 1), len(covariances) - 1) + 1)
    weights = np.clip(2.0 * (1.0 - lags / (lags[-1] + 1.0)), 0.0, 1.0) * covariances[lags]
    slope, density = 2.0 * float(weights @ lags), float(covariances[0] + 2.0 * weights.sum())
    if not density > 0:
        return 1.0
    return float((2.0 * slope**2 / (4.0 / 3.0 * density**2)) ** (1.0 / 3.0) * count ** (1.0 / 3.0))


def critical_value(cells: IntArray, bins: int, recent_bars: int, block_bars: float, significance: float) -> float:
    """What the index of ``recent_bars`` against a reference exceeds with the probability ``significance``.

    Samples of blocks of the reference are held against the whole of it, and a log-normal distribution takes on their
    mean and variance: far quantiles would take more samples than there is time for, and of few blocks the index has
    heavier tails than under independence. The reference itself is a sample too, for which the index is scaled by
    ``1 + recent / reference``.

    Parameters
    ----------
    cells
        The reference as numbers of bins, in time order.
    bins
        How many bins there are.
    recent_bars, block_bars
        Lengths; blocks are no longer than the recent window, and made to fill it evenly.
    significance
        Probability.
    """
    count = len(cells)
    blocks = max(1, int(recent_bars // block_bars))
    length = recent_bars // blocks
    inside = np.zeros((count + length + 1, bins), dtype=np.bool_)
    inside[np.arange(1, count + length + 1), np.concatenate([cells, cells[:length]])] = True
    sums = np.cumsum(inside, axis=0, dtype=np.float32)  # whole numbers, which it holds exactly
    in_block = sums[length : length + count] - sums[:count]
    starts = np.random.default_rng(_SEED).integers(0, count, size=(_REPLICATIONS, blocks))
    null = psi(in_block[starts].sum(axis=1), sums[count])
    mean, variance = float(null.mean()), float(null.var())
    if not variance > 0:
        return math.inf
    spread = math.log1p(variance / mean**2)
    quantile = NormalDist(math.log(mean) - spread / 2.0, math.sqrt(spread)).inv_cdf(1.0 - significance)
    return math.exp(quantile) * (1.0 + recent_bars / count) * (blocks * length / recent_bars)


class StreamMonitor:
    """One stream: the index of its recent bars, and whether it exceeds its critical value for good.

    ``index`` is NaN before there is anything to compare with, and ``critical`` infinite as long as the reference is too
    short to tell what is usual. The reference is cut into bins anew every ``recut_every_bars``, and its critical value
    found with the two bars after that, so that no bar bears it all. ``checks`` counts the looks at the index, and
    ``reference`` the bars it is held against.
    """

    def __init__(self, config: DriftConfig, phase: int) -> None:
        self.index = math.nan
        self.critical = math.inf
        self.drifted = False
        self.checks = 0
        self.reference = 0
        self._config = config
        self._phase = phase
        self._values = RingBuffer(config.reference_bars + config.recent_bars)
        self._seen = 0
        self._edges: FloatArray = np.empty(0)
        self._cells: IntArray | None = None
        self._block_bars: float | None = None
        self._reference_counts: IntArray = np.zeros(1, dtype=np.int64)
        self._checks_in_a_row = 0

    def __len__(self) -> int:
        return self._seen

    def add(self, value: float) -> None:
        """Take in one number."""
        config = self._config
        self._values.append(value)
        self._seen += 1
        if len(self._values) < config.min_reference_bars + config.recent_bars:
            return
        if self._cells is not None:
            self._measure(self._cells)
        elif (self._seen + self._phase) % config.recut_every_bars == 0 or len(self._edges) == 0:
            self._cut()
        elif (self._seen + self._phase) % config.check_every_bars == 1:
            self._check()

    def told(self) -> str:
        """The last check, for people."""
        return f"PSI {self.index:.3f}, critical {self.critical:.3f} (rule of thumb {RULE_OF_THUMB:g})"

    def _cut(self) -> None:
        reference = self._values.view()[: -self._config.recent_bars]
        self._edges = decile_edges(reference)
        self.reference = len(reference)
        self._cells = np.searchsorted(self._edges, reference, side="right")
        self._reference_counts = np.bincount(self._cells, minlength=len(self._edges) + 1)

    def _measure(self, cells: IntArray) -> None:
        """What the new reference makes of an index: first its blocks, then, with the next bar, the critical value."""
        config = self._config
        if self._block_bars is None:
            self._block_bars = max(_BLOCK_FACTOR * block_length(cells), _LEAST_BLOCK_BARS)
            return
        block_bars = min(self._block_bars, config.recent_bars)
        self.critical = math.inf
        if len(cells) >= _LEAST_BLOCKS * block_bars:
            bins = len(self._edges) + 1
            self.critical = critical_value(cells, bins, config.recent_bars, block_bars, config.significance)
        self._cells = self._block_bars = None

    def _check(self) -> None:
        config = self._config
        recent = counts_in(self._edges, self._values.view(config.recent_bars))
        self.index = float(psi(recent, self._reference_counts))
        self.checks += 1
        exceeds = self.index > self.critical
        self._checks_in_a_row = self._checks_in_a_row + 1 if exceeds is not self.drifted else 0
        if self._checks_in_a_row >= config.sustained_checks:
            self.drifted, self._checks_in_a_row = exceeds, 0


class DriftMonitor:
    """All streams of one instrument.

    ``errors_changed`` says that ADWIN found the size of forecast errors changed within the last ``recent_bars``.
    """

    def __init__(self, config: DriftConfig) -> None:
        self.streams = {
            stream: StreamMonitor(config, phase * config.check_every_bars // len(Stream) + phase)
            for phase, stream in enumerate(Stream)
        }
        self._config = config
        self._volatility = EwmaVolatility(_VOLATILITY_DECAY)
        self._adwin = ADWIN(delta=config.adwin_delta)
        self._since_change = config.recent_bars
        self._last_standardised = math.nan
        self._next_bar: FloatArray | None = None

    @property
    def errors_changed(self) -> bool:
        """Whether ADWIN has found a change lately."""
        return self._since_change < self._config.recent_bars

    def told(self) -> str:
        """What ADWIN sees, for people."""
        size, bars = self._adwin.estimation, int(self._adwin.width)
        return f"outcomes fall {size:.2f} from the middle of their forecasts over {bars} bars; 0.50 is right"

    def observe(self, log_return: float, shown_return: float) -> None:
        """Take in one bar.

        Parameters
        ----------
        log_return
            As it is: what forecasts are of.
        shown_return
            As the model sees it, without the season of the day.
        """
        self._since_change += 1
        streams = self.streams
        streams[Stream.VOLATILITY].add(abs(shown_return))
        known = self._volatility.value
        self._volatility.update(shown_return)
        if known > 0:
            standardised = shown_return / known
            streams[Stream.RETURNS].add(standardised)
            if not math.isnan(self._last_standardised):
                streams[Stream.DEPENDENCE].add(standardised * self._last_standardised)
            self._last_standardised = standardised
        if self._next_bar is not None:
            place = place_in(self._next_bar, log_return)
            streams[Stream.ERRORS].add(place)
            self._adwin.update(abs(2.0 * place - 1.0))
            if self._adwin.drift_detected:
                self._since_change = 0
            self._next_bar = None

    def await_outcome(self, next_bar: FloatArray) -> None:
        """Note the quantiles forecast for the next bar, shape (9,)."""
        self._next_bar = np.sort(next_bar)

    def forget_pending(self) -> None:
        """What was foretold lies across a gap."""
        self._next_bar, self._last_standardised = None, math.nan


def place_in(quantiles: FloatArray, outcome: float) -> float:
    """Where an outcome falls in its forecast, in (0, 1): its probability integral transform.

    Straight between quantiles; beyond the outer ones, of which a forecast says nothing, falling off with the distance
    in units of the forecast's width, so that places keep the outcomes' order.
    """
    low, high = float(quantiles[0]), float(quantiles[-1])
    width = max(high - low, 1e-300)
    if outcome < low:
        return QUANTILE_LEVELS[0] / (1.0 + (low - outcome) / width)
    if outcome > high:
        return 1.0 - QUANTILE_LEVELS[0] / (1.0 + (outcome - high) / width)
    return float(np.interp(outcome, quantiles, QUANTILE_LEVELS))
