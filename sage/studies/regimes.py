"""Are the volatility regimes as good as they can be, and is their transition probability true?

A market of two states is simulated. The classifier that trades, and its peers, warm up on or are fitted to the first
``bars`` bars of each series and are judged on as many more, bar by bar. The ceiling is a filter that knows the
simulation's parameters, cut at the long-run share of turbulence, which is what balanced accuracy asks for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from data.errors import OptionError
from regime.classifier import RegimeClassifier
from regime.config import ClassifierConfig
from regime.signal import VolatilityState
from regime.volatility_states import TRANSITION_BARS
from sage.progress import Progress
from sage.studies.kept import KeptCells
from sage.studies.regime_peers import fit_gaussian_hmm, fit_t_hmm, online_jump_model
from sage.studies.two_state import BoolArray, FloatArray, Score, TwoStateMarket, TwoStateModel, changes_within, score

T = TypeVar("T")
_Peers = dict[str, dict[str, Score]]

METHOD_VERSION = 1
MIXED_BARS, MIXED_WARM_UP_BARS = 3000, 1000
SEEDS_PER_CHUNK = 20
SEEDS_MAX = 10_000

OURS, CEILING, CEILING_AT_HALF = "SAGE", "true parameters", "true parameters, cut at 0.5"
PEERS = ("t-HMM", "t-HMM, cut at 0.5", "Gaussian HMM", "Gaussian HMM, cut at 0.5", "online jump model")

PROBABILITY_EDGES = np.array([0.0, 0.03, 0.05, 0.07, 0.09, 0.12, 0.15, 0.18, 0.21, 0.25, 0.30, 1.0])
"""Bins of the transition probability; the last one ends with 1."""


@dataclass(frozen=True)
class RegimeStudyConfig:
    """What is simulated.

    ``seeds`` series of each cell, seeds 1 to that; ``lengths`` are the bars to warm up on and to be judged on. With
    ``out`` finished cells are kept there.
    """

    seeds: int = 20
    lengths: tuple[int, ...] = (1000, 2000)
    turbulent_volatilities: tuple[float, ...] = (0.0174, 0.0214)
    degrees_of_freedom: tuple[float | None, ...] = (None, 5.0)
    calm_volatility: float = 0.007759
    out: Path | None = None


@dataclass(frozen=True)
class Cell:
    """One setting of the simulation."""

    bars: int
    market: TwoStateMarket

    @property
    def name(self) -> str:
        """For people."""
        nu = self.market.degrees_of_freedom
        shocks = "Gaussian" if nu is None else f"t({nu:g})"
        return f"{shocks}, {self.market.volatilities[1]:g}, {self.bars:,} bars"


@dataclass(frozen=True)
class Row:
    """One series: its scores by method, or why it was left out, and what the transition probability said.

    ``transitions`` counts bars by bins of the probability, shape (bins, 5): bars, the probabilities' sum, bars that a
    transition of the hidden state followed within TRANSITION_BARS, that one of the named state followed, and the sum
    of the squared differences to the former. ``noticed`` holds how long the classifier believed each change that it
    named to have been there.
    """

    seed: int
    excluded: str
    scores: dict[str, Score]
    transitions: list[list[float]]
    hidden_changes: int
    noticed: list[int]

    def beside(self, peers: dict[str, Score]) -> Row:
        """With the scores of others added."""
        return dataclasses.replace(self, scores={**self.scores, **peers})


@dataclass(frozen=True)
class CellResult:
    """All series of a cell."""

    cell: Cell
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Example:
    """One series for a picture, the judged part of it."""

    returns: FloatArray
    turbulent: BoolArray
    found: BoolArray
    probability_high: FloatArray
    transition_probability: FloatArray


@dataclass(frozen=True)
class RegimeStudy:
    """The study's results; ``mixed`` are markets whose stays and volatilities differ from one to the next."""

    config: RegimeStudyConfig
    cells: tuple[CellResult, ...]
    mixed: tuple[Row, ...]
    example: Example
    reused: int


def evaluate(config: RegimeStudyConfig, progress: Progress) -> RegimeStudy:
    """Run the study. Raises OptionError for numbers that make no sense, OSError where cells cannot be kept."""
    if not 1 <= config.seeds <= SEEDS_MAX:
        raise OptionError(f"--seeds {config.seeds}: must lie between 1 and {SEEDS_MAX:,}")
    if any(bars < 200 for bars in config.lengths):
        raise OptionError("--bars: must be 200 or more")
    method = {"method": METHOD_VERSION, "calm": config.calm_volatility}
    kept_peers = KeptCells(config.out, "regimes-peers", method)
    kept_ours = KeptCells(config.out, "regimes", method | dataclasses.asdict(ClassifierConfig()))
    cells = cells_of(config)
    chunks = [range(first, min(first + SEEDS_PER_CHUNK, config.seeds + 1))
              for first in range(1, config.seeds + 1, SEEDS_PER_CHUNK)]  # fmt: skip
    progress.stage("series", (len(cells) + 1) * config.seeds)
    found: dict[Cell, list[Row]] = {cell: [] for cell in cells}
    mixed: list[Row] = []
    # Chunk by chunk over all cells, so that what an interrupted study has is of all of them.
    for seeds in chunks:
        for cell in cells:
            peers = _kept(kept_peers, cell.name, seeds, partial(judge_peers, cell), _Peers)
            ours = _kept(kept_ours, cell.name, seeds, partial(judge_ours, cell), list[Row])
            found[cell].extend(row.beside(peers.get(str(row.seed), {})) for row in ours)
            progress.advance(len(seeds), cell.name)
        mixed.extend(_kept(kept_ours, "mixed", seeds, judge_mixed, list[Row]))
        progress.advance(len(seeds), "markets of many kinds")
    results = tuple(CellResult(cell, tuple(rows)) for cell, rows in found.items())
    return RegimeStudy(config, results, tuple(mixed), _example(cells[-1]), kept_peers.reused)


def cells_of(config: RegimeStudyConfig) -> tuple[Cell, ...]:
    """All settings, the plainest first."""
    return tuple(
        Cell(bars, TwoStateMarket((config.calm_volatility, turbulent), nu))
        for nu in config.degrees_of_freedom
        for turbulent in config.turbulent_volatilities
        for bars in config.lengths
    )


def judge_ours(cell: Cell, seeds: Sequence[int]) -> list[Row]:
    """Simulate a cell's series and judge the classifier that trades on each.

    A series is left out where one of its halves knows one state only: there is nothing to be learned, or no recall.
    """
    rows = []
    for seed in seeds:
        returns, turbulent = simulate(cell, seed)
        ours, excluded = follow(returns), _exclusion(turbulent, cell.bars)
        judged = slice(cell.bars, None)
        scores = {} if excluded else {OURS: score(ours.found[judged], turbulent[judged])}
        rows.append(_row(seed, excluded, scores, ours, turbulent, cell.bars))
    return rows


def judge_peers(cell: Cell, seeds: Sequence[int]) -> _Peers:
    """The scores of ceiling and peers, by seed and name, of the series that are not left out."""
    simulated = {seed: simulate(cell, seed) for seed in seeds}
    used = [seed for seed in seeds if not _exclusion(simulated[seed][1], cell.bars)]
    if not used:
        return {}
    states = _peers(cell, np.array([simulated[seed][0] for seed in used]), used)
    return {
        str(seed): {name: score(found[at], simulated[seed][1][cell.bars :]) for name, found in states.items()}
        for at, seed in enumerate(used)
    }


def judge_mixed(seeds: Sequence[int]) -> list[Row]:
    """Ours on markets that are all different: what the transition probability says where stays are long or short."""
    return [_mixed(seed) for seed in seeds]


def _mixed(seed: int) -> Row:
    rng = np.random.default_rng([seed, MIXED_BARS])

    def between(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    calm, stays = 0.01, (1.0 - 1.0 / between(80.0, 600.0), 1.0 - 1.0 / between(30.0, 250.0))
    nu = (None, 5.0)[rng.integers(2)]
    market = TwoStateMarket((calm, calm * between(1.8, 3.5)), nu, (0.0, 0.0), stays)
    returns, turbulent = market.simulate(rng, MIXED_WARM_UP_BARS + MIXED_BARS)
    return _row(seed, "", {}, follow(returns), turbulent, MIXED_WARM_UP_BARS)


def _row(seed: int, excluded: str, scores: dict[str, Score], ours: Followed, turbulent: BoolArray, first: int) -> Row:
    changes = int((turbulent[first + 1 :] != turbulent[first:-1]).sum())
    noticed = [bars for bar, bars in ours.noticed if bar >= first]
    return Row(seed, excluded, scores, transitions(ours, turbulent, first), changes, noticed)


def simulate(cell: Cell, seed: int) -> tuple[FloatArray, BoolArray]:
    """A cell's series of this seed: its returns and whether they are turbulent, warm-up and judged part."""
    nu = cell.market.degrees_of_freedom
    words = [seed, cell.bars, round(1e6 * cell.market.volatilities[1]), 0 if nu is None else round(10 * nu)]
    return cell.market.simulate(np.random.default_rng(words), 2 * cell.bars)


@dataclass(frozen=True)
class Followed:
    """What the classifier said after each bar; ``noticed`` pairs each change's bar with its supposed delay."""

    found: BoolArray
    probability_high: FloatArray
    transition_probability: FloatArray
    noticed: list[tuple[int, int]]


def follow(returns: FloatArray, config: ClassifierConfig | None = None) -> Followed:
    """Feed the classifier that trades, bar by bar."""
    classifier = RegimeClassifier(config or ClassifierConfig())
    found = np.empty(len(returns), dtype=bool)
    high, leaving = np.empty(len(returns)), np.empty(len(returns))
    noticed = []
    for bar, value in enumerate(returns.tolist()):
        classifier.observe(value, 0.0)  # the direction is not judged here
        regime = classifier.classify(None)
        found[bar] = regime.volatility_state is VolatilityState.HIGH
        high[bar], leaving[bar] = classifier.volatility.probability_high, regime.transition_probability
        if bar and found[bar] != found[bar - 1]:
            noticed.append((bar, classifier.volatility.delay_bars))
    return Followed(found, high, leaving, noticed)


def transitions(followed: Followed, turbulent: BoolArray, first: int) -> list[list[float]]:
    """The table of :class:`Row`, of the bars from ``first`` on whose next TRANSITION_BARS bars are known."""
    said = followed.transition_probability[first:-TRANSITION_BARS]
    hidden = changes_within(turbulent[first:], TRANSITION_BARS)
    named = changes_within(followed.found[first:], TRANSITION_BARS)
    bins = np.clip(np.searchsorted(PROBABILITY_EDGES, said, side="right") - 1, 0, len(PROBABILITY_EDGES) - 2)
    columns = (np.ones(len(said)), said, hidden, named, (said - hidden) ** 2)
    size = len(PROBABILITY_EDGES) - 1
    return [list(row) for row in zip(*(np.bincount(bins, column, size).tolist() for column in columns), strict=True)]


def _exclusion(turbulent: BoolArray, bars: int) -> str:
    for name, part in (("judged", turbulent[bars:]), ("first", turbulent[:bars])):
        if part.all() or not part.any():
            return f"one state only in the {name} half"
    return ""


def _peers(cell: Cell, returns: FloatArray, seeds: Sequence[int]) -> dict[str, BoolArray]:
    """States of the judged part by peer, each of shape (series, bars)."""
    first = returns[:, : cell.bars]
    models = {
        CEILING: TwoStateModel.of(cell.market, len(returns)),
        "t-HMM": fit_t_hmm(first, np.random.default_rng(list(seeds))),
        "Gaussian HMM": fit_gaussian_hmm(first),
    }
    found = {}
    for name, model in models.items():
        probability = model.filtered(returns)[:, cell.bars :]
        found[name] = probability > model.turbulent_share[:, None]
        found[f"{name}, cut at 0.5"] = probability > 0.5
    found["online jump model"] = np.array([online_jump_model(row, cell.bars)[cell.bars :] for row in returns])
    return found


def _example(cell: Cell) -> Example:
    """The first series of a cell that is not left out."""
    seed = next(seed for seed in range(1, SEEDS_MAX) if not _exclusion(simulate(cell, seed)[1], cell.bars))
    returns, turbulent = simulate(cell, seed)
    ours = follow(returns)
    judged = slice(cell.bars, None)
    return Example(returns[judged], turbulent[judged], ours.found[judged], ours.probability_high[judged],
                 ours.transition_probability[judged])  # fmt: skip


def _kept(kept: KeptCells, name: str, seeds: Sequence[int], judge: Callable[[Sequence[int]], T], kind: type[T]) -> T:
    """What was kept of these series, else made and kept."""
    key = f"{name} {seeds[0]}-{seeds[-1]}"
    document = kept.get(key)
    if document is not None:
        return msgspec.convert(document, kind)
    judged = judge(seeds)
    kept.put(key, msgspec.to_builtins(judged))
    return judged
