"""The markets that a study runs its backtests on: simulated ones, the S&P 500, instruments of a catalog."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data.errors import OptionError
from data.market import Market, catalog_market, sp500_market, synthetic_market
from data.synthetic import SyntheticConfig
from sage.evaluation.settings import EvaluationConfig
from sage.evaluation.study import wanted_markets

SP500 = "S&P 500"


@dataclass(frozen=True)
class StudyMarkets:
    """Which markets, and the newest ``bars`` of each.

    ``seeds`` simulated ones, from that of ``synthetic`` on; the S&P 500 with ``sp500``; of ``catalog`` the instruments
    named, or all.
    """

    seeds: int
    bars: int
    sp500: bool = False
    catalog: Path | None = None
    instruments: tuple[str, ...] = ()
    bar: str | None = None
    start: str | None = None
    end: str | None = None
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)

    def check(self, min_bars: int) -> None:
        """Refuse what makes no sense. Raises OptionError."""
        if not 0 <= self.seeds <= 1_000:
            raise OptionError("--seeds must lie between 0 and 1000")
        if self.bars < min_bars:
            raise OptionError(f"--bars must be {min_bars:,} or more")
        if not (self.seeds or self.sp500 or self.catalog is not None):
            raise OptionError("nothing to run on: give --seeds, --data sp500, --catalog or several of them")
        for option in ("instruments", "bar", "start", "end"):
            if self.catalog is None and getattr(self, option):
                raise OptionError(f"--{option.rstrip('s')} goes with --catalog")

    def wanted(self) -> list[str | int | tuple[str, str]]:
        """Seeds, the S&P 500, instruments with their bar sizes. Raises CatalogError for what the catalog has not."""
        seeds: list[str | int | tuple[str, str]] = [self.synthetic.seed + number for number in range(self.seeds)]
        shares: list[str | int | tuple[str, str]] = [SP500] if self.sp500 else []
        if self.catalog is None:
            return [*seeds, *shares]
        held = EvaluationConfig(
            catalog=self.catalog, instruments=self.instruments, bar=self.bar, start=self.start, end=self.end
        )
        return [*seeds, *shares, *wanted_markets(held)]

    def load(self, wanted: list[str | int | tuple[str, str]]) -> Iterator[tuple[str, Market]]:
        """One market after the other, by name."""
        for what in wanted:
            if isinstance(what, int):
                yield f"seed {what}", synthetic_market(dataclasses.replace(self.synthetic, bars=self.bars, seed=what))
            elif isinstance(what, str):
                yield what, self._newest(sp500_market())
            else:
                assert self.catalog is not None
                yield " ".join(what), self._newest(catalog_market(self.catalog, *what, self.start, self.end))

    def _newest(self, market: Market) -> Market:
        return market.part(max(0, len(market.bars) - self.bars), len(market.bars))
