"""Does anything before a bar depend on what comes after it? Runs with other futures, held against the first one.

A run is repeated on bars that end after the n-th, and on bars that go on quite differently from there, up and down.
Whatever was decided by then, signals, votes and every step of every order, must come out the same to the bit. The n are
chosen right behind decisions, where even a peek of one bar must show, and at random. What user code computes from all
bars before the run is computed anew from the altered ones.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd

from data.bars import Bars, iso
from data.catalog import rounded, to_nautilus
from data.errors import OptionError
from data.market import Market
from regime.errors import ModelUnavailable, UserCodeRaised
from sage.backtest import run_backtest
from sage.bookkeeper import OrderStep
from sage.compare import TIME_OF, Difference, difference_report, first_difference
from sage.model import runs_online
from sage.progress import Progress, Silent
from sage.reads import files_opened_by
from sage.results import hashed_tables
from sage.run import BacktestFailed, BacktestRun
from sage.votes import weights_table

CUTS = 8
"""Places at which the future is altered, unless told otherwise."""

MIN_BARS = 50
GOES_ON_BARS = 64
"""So many altered bars follow a cut, where the run had as many."""

_TREND_BARS = 16
_JUMP_SD = 8.0
_WORTH_MAX = 3.0
"""Log of the factor by which an altered future moves the price, at most."""


class Future(StrEnum):
    """What comes after a cut."""

    CUT_OFF = "no bars at all"
    RISING = "a jump up, wide bars, heavy volume"
    FALLING = "a jump down, narrow bars, thin volume"


class Verdict(StrEnum):
    """What a check found."""

    CLEAN = "clean"
    FOUND = "found"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Finding:
    """Something that depends on a later bar.

    ``bar`` is the first one, from 1, at which a run with another ``future`` after bar ``kept`` came out otherwise:
    it knows something of what happens ``kept - bar + 1`` bars later, or more.
    """

    bar: int
    ts_ns: int
    kept: int
    future: Future
    difference: Difference

    @property
    def bars_ahead(self) -> int:
        """How far it looks at the least."""
        return self.kept - self.bar + 1


@dataclass
class Lookahead:
    """A check's outcome.

    ``cuts`` are the numbers of bars kept; ``decisions`` the bars with an order, ``probed`` those with a cut right
    behind them, where a peek of a single bar shows. ``signals`` and ``steps`` were compared at the last cut.
    """

    verdict: Verdict
    why: str = ""
    finding: Finding | None = None
    cuts: list[int] = field(default_factory=list)
    runs: int = 0
    decisions: int = 0
    probed: int = 0
    signals: int = 0
    steps: int = 0
    notes: list[str] = field(default_factory=list)


def check_lookahead(run: BacktestRun, cuts: int = CUTS, progress: Progress | None = None) -> Lookahead:
    """Hold a finished run against runs with other futures.

    Parameters
    ----------
    run
        The run to be checked, with its own configuration and bars.
    cuts
        How many places to alter the future at.
    progress
        Hears how far the check is.

    Raises
    ------
    OptionError
        If the run depended on the clock by its configuration, so that no other one could equal it.
    """
    require_checkable(run.config.regime.deadline_ms, cuts)
    return _Check(run, progress or Silent()).outcome(cuts)


def require_checkable(deadline_ms: float, cuts: int) -> None:
    """Raise OptionError for what cannot be checked, before the run that would be."""
    if deadline_ms:
        raise OptionError("--check-lookahead needs runs that can be compared to the bit: not under --deadline-ms")
    if cuts < 1:
        raise OptionError("--lookahead-cuts must be 1 or more")


def altered(market: Market, kept: int, future: Future) -> Market:
    """The market with its first ``kept`` bars as they are, and another future.

    Altered bars are valid: positive prices on the instrument's grid, high and low around open and close, at the times
    of the bars whose place they take.
    """
    past = market.bars[:kept]
    bars, nautilus_bars = past, market.nautilus_bars[:kept]
    if future is not Future.CUT_OFF:
        rest = rounded(_other_bars(market, kept, future), market.instrument)
        bars = Bars(*(np.concatenate(pair) for pair in zip(past.columns(), rest.columns(), strict=True)))
        nautilus_bars = nautilus_bars + to_nautilus(rest, market.instrument, market.size)
    return dataclasses.replace(market, bars=bars, nautilus_bars=nautilus_bars, labels=None)


def as_report(found: Lookahead) -> dict[str, Any]:
    """The outcome, plain enough for JSON."""
    finding = found.finding
    told = dataclasses.asdict(found) | {"verdict": str(found.verdict)}
    if finding is not None:
        told["finding"] = {
            "bar": finding.bar,
            "time": iso(finding.ts_ns),
            "bars_ahead": finding.bars_ahead,
            "altered_after_bar": finding.kept,
            "altered_to": str(finding.future),
            "difference": difference_report(finding.difference),
        }
    return told


class _Check:
    """One check: the run, what it decided, and what other futures made of that."""

    def __init__(self, run: BacktestRun, progress: Progress) -> None:
        self._run = run
        self._progress = progress
        self._stamps = run.market.bars.ts_close_ns
        self._before = _decided(run)
        self._notes: list[str] = []
        self._runs = 0
        self._compared = 0
        steps = self._before["orders"]
        sent = steps.loc[steps["event"] == "OrderInitialized", "ts_ns"].to_numpy(dtype=np.int64)
        rows = np.unique(np.searchsorted(self._stamps, sent, side="right"))
        # As the number of bars up to each; not the last bar, behind which nothing can be altered.
        self._decisions = rows[(rows > 0) & (rows < len(self._stamps))].tolist()

    def outcome(self, cuts: int) -> Lookahead:
        """The whole check."""
        run, bars = self._run, len(self._stamps)
        if bars < MIN_BARS:
            return self._undecided(f"{bars} bars are too few: {MIN_BARS} or more are needed")
        if run.config.own.strategy is not None and not self._decisions:
            return self._undecided("the strategy sent no order that could be compared")
        chosen = _choose(self._decisions, bars, cuts)
        self._progress.stage("looking for look-ahead", 1 + len(chosen) * len(Future))
        with files_opened_by([source.file for source in run.own.values()]) as opened:
            again = self._attempt(run.market)
        for path in sorted(opened):
            self._note(f"your code opens {path} by itself: what it knows from there was not altered, and not checked")
        parted = again if isinstance(again, str) else first_difference(self._before, _decided(again))
        if parted is not None:
            where = parted if isinstance(parted, str) else f"{parted.table}, {iso(parted.ts_ns)}, {parted.column}"
            return self._undecided(
                f"two runs over the same bars differ ({where}): nothing can be compared with what is left to chance; "
                "give its random numbers a seed"
            )
        found = next(filter(None, map(self._differs_at, chosen)), None)
        if found is not None:
            found = self._earliest(found)
        elif not self._compared:
            return self._undecided("no run with another future could be made")
        last = int(self._stamps[chosen[-1] - 1])
        return Lookahead(
            verdict=Verdict.FOUND if found is not None else Verdict.CLEAN,
            finding=found,
            cuts=chosen,
            runs=self._runs,
            decisions=len(self._decisions),
            probed=len(set(chosen) & set(self._decisions)),
            signals=int((self._before["signals"]["ts_event"] <= last).sum()),
            steps=int((self._before["orders"]["ts_ns"] <= last).sum()),
            notes=self._notes,
        )

    def _undecided(self, why: str) -> Lookahead:
        return Lookahead(Verdict.UNDECIDED, why, runs=self._runs, decisions=len(self._decisions), notes=self._notes)

    def _differs_at(self, kept: int) -> Finding | None:
        """The first difference before this cut that another future makes; of several futures the earliest."""
        found = [self._differs_with(kept, future) for future in Future]
        return min(filter(None, found), key=lambda finding: finding.bar, default=None)

    def _differs_with(self, kept: int, future: Future) -> Finding | None:
        other = self._attempt(altered(self._run.market, kept, future))
        if isinstance(other, str):
            self._note(f"not compared: {other}, with {future} after bar {kept:,}")
            return None
        self._compared += 1
        last_ns = int(self._stamps[kept - 1])
        difference = first_difference(_until(self._before, last_ns), _until(_decided(other), last_ns))
        if other.stopped is not None and (difference is None or other.answer_stamps[-1] <= difference.ts_ns):
            # Orders that are missing then are so because of it.
            ts_ns = other.answer_stamps[-1]
            raised = Difference("strategy", len(other.timings) - 1, ts_ns, "raised", None, str(other.stopped))
            difference = raised if ts_ns <= last_ns else None
        if difference is None:
            return None
        bar = int(np.searchsorted(self._stamps, difference.ts_ns, side="right"))
        return Finding(bar, difference.ts_ns, kept, future, difference)

    def _earliest(self, found: Finding) -> Finding:
        """Look between earlier decisions, by halves, for one that already depends on what comes after it."""
        low, candidates = 0, [kept for kept in self._decisions if kept < found.bar]
        while low < len(candidates):
            middle = (low + len(candidates)) // 2
            self._progress.advance(0, f"found at bar {found.bar:,}, looking for an earlier one")
            earlier = self._differs_at(candidates[middle])
            if earlier is None:
                low = middle + 1
            else:
                found = earlier
                candidates = [kept for kept in candidates[:middle] if kept < found.bar]
        return found

    def _attempt(self, market: Market) -> BacktestRun | str:
        """A run over these bars, or why there is none."""
        self._runs += 1
        try:
            return run_backtest(self._run.config, market=market, known=self._known())
        except BacktestFailed as error:
            return error.run
        except (UserCodeRaised, ModelUnavailable) as error:
            return str(error)
        finally:
            self._progress.advance(1)

    def _known(self) -> Any:
        return None if runs_online(self._run.config) else self._run.known

    def _note(self, note: str) -> None:
        if note not in self._notes:
            self._notes.append(note)


def _decided(run: BacktestRun) -> dict[str, pd.DataFrame]:
    """What a run has decided, bar by bar: its signals, the alphas' votes and weights, and the steps of its orders."""
    steps = pd.DataFrame(run.order_steps, columns=[item.name for item in dataclasses.fields(OrderStep)])
    return {"signals": hashed_tables(run)["signals"], "votes": weights_table(run.ensemble), "orders": steps}


def _until(tables: dict[str, pd.DataFrame], last_ns: int) -> dict[str, pd.DataFrame]:
    return {name: frame[frame[TIME_OF[name]] <= last_ns] for name, frame in tables.items()}


def _choose(decisions: list[int], bars: int, cuts: int) -> list[int]:
    """Numbers of bars to keep, ascending: most of them right behind decisions, spread evenly, the others at random."""
    wanted = min(len(decisions), cuts - cuts // 4)
    spread = np.linspace(0, len(decisions) - 1, wanted).round().astype(int)
    chosen = {decisions[at] for at in spread}
    free = np.setdiff1d(np.arange(max(2, bars // 10), bars), list(chosen))
    rng = np.random.default_rng(0)
    chosen |= set(rng.choice(free, min(len(free), cuts - len(chosen)), replace=False).tolist())
    return sorted(chosen)


def _other_bars(market: Market, kept: int, future: Future) -> Bars:
    """Bars that move away from the last one kept as strongly as they can be believed, then stay there.

    Unrounded, shape (GOES_ON_BARS,) or as many as the market has left.
    """
    bars = market.bars
    count = min(GOES_ON_BARS, len(bars) - kept)
    up = future is Future.RISING
    past = np.log(bars.close[:kept])
    smallest = 10.0**-market.instrument.price_precision
    one_sd = max(float(np.std(np.diff(past[-512:]))) if kept > 2 else 0.0, 2 * smallest / float(bars.close[kept - 1]))
    noise = np.random.default_rng([kept, up]).random(count)
    steps = np.where(np.arange(count) < _TREND_BARS, 1.0 + noise, noise - 0.5)
    steps[0] += _JUMP_SD
    path = np.cumsum(steps) * one_sd
    path *= min(1.0, _WORTH_MAX / float(np.abs(path).max())) * (1.0 if up else -1.0)
    close = np.maximum(bars.close[kept - 1] * np.exp(path), smallest)
    opened = np.concatenate([[bars.close[kept - 1]], close[:-1]])
    wick = np.exp(3 * one_sd) if up else 1.0
    high, low = np.maximum(opened, close) * wick, np.maximum(np.minimum(opened, close) / wick, smallest)
    usual = float(np.median(bars.volume[:kept]))
    volume = np.full(count, usual * (20.0 if up else 0.05))
    return Bars(bars.ts_close_ns[kept : kept + count], opened, high, low, close, volume)
