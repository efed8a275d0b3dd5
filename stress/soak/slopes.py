"""The slope of levels under noise whose memory is not known, with an interval by block bootstrap.

Memory is strongly autocorrelated: an hour of it may hold no more than one or two independent values. How long its
noise remembers decides how sure a slope is, and cannot be measured well from the same hour; an interval that takes one
estimate of it for granted is far too short. So all likely answers are carried along. A *candidate* is

    level of the generation + slope * clock - transient + Ornstein-Uhlenbeck noise + white noise

with hours or bars for the clock (what leaks with each bar is no straight line in time where the pace changes), one
correlation time, one share of white noise, and either no transient or one that dies away within a part of the
generation. For each candidate generalised least squares give the slope, and its restricted likelihood (Patterson and
Thompson, Biometrika 58, 1971) the weight; a transient is charged for by a prior that is worth one piece (Kass and
Wasserman, JASA 90, 1995) of each generation. The bootstrap draws a candidate by weight, then blocks of that candidate's
whitened residuals (moving blocks: Künsch, Annals of Statistics 17, 1989), so that steps and fat tails in the noise
remain in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stress.soak.pieces import Floats, Pieces

LEVEL = 0.95
"""What the intervals are to cover."""
_CORRELATIONS = 12
_CORRELATION_PIECES_MIN = 0.7
_CORRELATION_SPANS_MAX = 5.0
_WHITE = np.array([0.0, 1.0, 8.0])
_TRANSIENT_SPANS = np.array([0.04, 0.1, 0.25])
_TRANSIENT_PRIOR = 0.5
_REPLICATES = 2_000
_BLOCK_PIECES = 4
_FREEDOM_MIN = 8


@dataclass(frozen=True)
class Slope:
    """A slope with the bounds of its 95 % interval."""

    estimate: float
    lower: float
    upper: float


@dataclass(frozen=True)
class _Fits:
    """Generalised least squares by candidate, of shape (candidates,) or (candidates, pieces).

    ``influence`` is what a whitened residual of one adds to the slope. ``freedom`` is what the residuals have left.
    """

    weight: Floats
    slope: Floats
    influence: Floats
    residual: Floats
    freedom: Floats


def freedom_of(pieces: Pieces) -> int:
    """Degrees of freedom that levels of generations and a slope leave."""
    return len(pieces) - len(pieces.begins) - 1


def can_fit(pieces: Pieces) -> bool:
    """Whether there are enough pieces to speak of an interval."""
    return len(pieces) > 0 and freedom_of(pieces) >= _FREEDOM_MIN


def slope_of(pieces: Pieces, seed: int = 0) -> Slope | None:
    """How much megabytes grow per hour, or None where that cannot be said.

    The same pieces and seed give the same interval.
    """
    if not can_fit(pieces) or _spacing(pieces) == 0.0:
        return None
    fits = _fitted(pieces)
    rng = np.random.default_rng(seed)
    count = fits.residual.shape[1]
    # Evenly spread draws: no candidate comes more or less often than its weight, but for rounding.
    quantiles = (np.arange(_REPLICATES) + 0.5) / _REPLICATES
    drawn = np.minimum(np.searchsorted(np.cumsum(fits.weight), quantiles), len(fits.weight) - 1)
    starts = rng.integers(0, count, (_REPLICATES, -(-count // _BLOCK_PIECES)), dtype=np.int32)
    blocks = (starts[:, :, None] + np.arange(_BLOCK_PIECES, dtype=np.int32)) % count
    residual = fits.residual - fits.residual.mean(axis=1, keepdims=True)
    residual *= np.sqrt(count / fits.freedom)[:, None]
    resampled = residual[drawn[:, None], blocks.reshape(_REPLICATES, -1)[:, :count]]
    error = np.einsum("ij,ij->i", resampled, fits.influence[drawn])
    # How large the noise is, is known from few values as well: Student's t in the place of the normal distribution.
    error *= np.sqrt(fits.freedom[drawn] / rng.chisquare(fits.freedom[drawn]))
    lower, estimate, upper = np.quantile(fits.slope[drawn] + error, [0.5 - LEVEL / 2, 0.5, 0.5 + LEVEL / 2])
    return Slope(float(estimate), float(lower), float(upper))


def _fitted(pieces: Pieces) -> _Fits:
    longest = float(np.max(pieces.hours[pieces.ends - 1] - pieces.hours[pieces.begins]))
    correlation = np.geomspace(
        _CORRELATION_PIECES_MIN * _spacing(pieces), _CORRELATION_SPANS_MAX * longest, _CORRELATIONS
    )
    correlation, white = (grid.ravel() for grid in np.meshgrid(correlation, _WHITE, indexing="ij"))
    clocks = [pieces.hours - pieces.hours.mean()]
    if pieces.bars_counted > 0.0:
        clocks.append((pieces.bars - pieces.bars.mean()) * pieces.hours_counted / pieces.bars_counted)
    transients = -np.exp(-pieces.age_hours / (_TRANSIENT_SPANS[:, None] * longest))
    y = pieces.megabytes - np.median(pieces.megabytes)
    whitened, log_scale = _whitened(
        pieces, np.vstack([np.ones(len(pieces)), y, transients, *clocks]), correlation, white
    )
    whitened, log_norm = _without_levels(pieces, whitened)
    y, transients = whitened[:, 1], np.moveaxis(whitened[:, 2 : 2 + len(transients)], 1, 0)
    worth = len(pieces) / len(pieces.begins)
    tiny = 1e-18 * float(np.ptp(pieces.megabytes)) ** 2 + 1e-30
    fits = [
        _by_clock(clock, y, transients, -0.5 * (log_scale + log_norm), freedom_of(pieces), worth, tiny)
        for clock in np.moveaxis(whitened[:, 2 + len(transients) :], 1, 0)
    ]
    log_weight, *others = (np.concatenate(parts) for parts in zip(*fits, strict=True))
    weight = np.exp(log_weight - log_weight.max())
    return _Fits(weight / weight.sum(), *others)


def _by_clock(
    clock: Floats, y: Floats, transients: Floats, log_common: Floats, freedom: int, worth: float, tiny: float
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Logarithms of weights, then what ``_Fits`` has, for each transient (none at first) and all kinds of noise.

    Whitened ``clock`` and ``y`` have shape (kinds, pieces), ``transients`` (transients, kinds, pieces).
    All pieces are ``worth`` as much as so many priors.
    """
    norm = np.sum(clock**2, axis=1)
    slope = np.sum(clock * y, axis=1) / norm
    residual = y - slope[:, None] * clock
    squares = np.sum(residual**2, axis=1) + tiny
    log_common = log_common - 0.5 * np.log(norm)
    log_weights = [log_common - 0.5 * freedom * np.log(squares) + np.log1p(-_TRANSIENT_PRIOR)]
    slopes, influences, residuals = [slope], [clock / norm[:, None]], [residual]
    for transient in transients:
        # Its part that the clock does not explain; and the slope is from the clock's part that it does not explain.
        shared = np.sum(clock * transient, axis=1)
        apart = transient - (shared / norm)[:, None] * clock
        apart_norm = np.sum(apart**2, axis=1)
        size = np.sum(apart * residual, axis=1) / apart_norm
        explained = size**2 * apart_norm
        score = size * np.sqrt(apart_norm * (freedom - 1) / np.maximum(squares - explained, tiny))
        log_weights.append(
            log_common
            - 0.5 * freedom * np.log(squares - explained * worth / (worth + 1.0))
            - 0.5 * np.log(worth + 1.0)
            + np.log(2.0 / (1.0 + np.exp(-1.7 * np.clip(score, -30.0, 30.0))))  # memory settles upwards
            + np.log(_TRANSIENT_PRIOR / len(transients))
        )
        own = clock - (shared / np.sum(transient**2, axis=1))[:, None] * transient
        own_norm = np.sum(own**2, axis=1)
        slopes.append(np.sum(own * y, axis=1) / own_norm)
        influences.append(own / own_norm[:, None])
        residuals.append(residual - size[:, None] * apart)
    left = np.repeat([freedom, *([freedom - 1] * len(transients))], len(norm)).astype(np.float64)
    log_weight, slope, influence, residual = map(np.concatenate, (log_weights, slopes, influences, residuals))
    return log_weight, slope, influence, residual, left


def _spacing(pieces: Pieces) -> float:
    gaps = np.diff(pieces.hours)
    return float(np.median(np.delete(gaps, pieces.begins[1:] - 1)))


def _whitened(pieces: Pieces, columns: Floats, correlation: Floats, white: Floats) -> tuple[Floats, Floats]:
    """Columns less what their past foretells, in units of what it leaves; and the logarithm of those units' product.

    A Kalman filter for all candidates at once, begun anew with each generation. ``correlation`` (hours) and ``white``
    (variance, in units of what the noise gathers anew from piece to piece) have shape (candidates,), ``columns``
    (columns, pieces); the result has (candidates, columns, pieces) and (candidates,).

    A piece is an average over its time. Averages of an Ornstein-Uhlenbeck process are correlated as that process is,
    only their variance is smaller: white noise of negative variance, so to speak. For a random walk it is a sixth of
    the step's (Working, Econometrica 28, 1960), and without it a walk would look a fifth tamer than it is.
    """
    spacing = _spacing(pieces)
    ratio = spacing / correlation
    between = (2.0 * np.sinh(ratio / 2.0) / ratio) ** 2
    within = 2.0 * (ratio + np.expm1(-ratio)) / ratio**2
    averaged = 1.0 - (len(pieces) / pieces.samples) ** 2
    offset = averaged * (within / between - 1.0) - white * np.expm1(-2.0 * ratio)
    begins = set(pieces.begins.tolist())
    # No shorter step than usual, or the negative variance would be more than there is.
    decay = np.exp(-np.maximum(np.diff(pieces.hours, prepend=0.0), spacing)[:, None] / correlation)
    found = np.empty((len(pieces), len(correlation), len(columns)))
    log_scale = np.zeros(len(correlation))
    mean, variance = np.zeros(found.shape[1:]), np.ones(len(correlation))
    for piece, remains in enumerate(decay):
        if piece in begins:
            mean, variance = np.zeros_like(mean), np.ones_like(variance)
        else:
            mean, variance = remains[:, None] * mean, remains**2 * variance + 1.0 - remains**2
        scale = variance + offset
        surprise = columns[:, piece] - mean
        found[piece] = surprise / np.sqrt(scale)[:, None]
        gain = variance / scale
        mean = mean + gain[:, None] * surprise
        variance = variance * (1.0 - gain)
        log_scale += np.log(scale)
    return np.moveaxis(found, 0, 2), log_scale


def _without_levels(pieces: Pieces, whitened: Floats) -> tuple[Floats, Floats]:
    """The columns less the level of each generation, and the logarithm of what the levels' column came to."""
    level = whitened[:, 0]
    norm = np.add.reduceat(level**2, pieces.begins, axis=1)
    size = np.add.reduceat(whitened * level[:, None], pieces.begins, axis=2) / norm[:, None]
    of_piece = np.repeat(size, pieces.ends - pieces.begins, axis=2)
    return whitened - of_piece * level[:, None], np.sum(np.log(norm), axis=1)
