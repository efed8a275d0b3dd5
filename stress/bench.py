"""How fast a whole backtest is: the first time, again, and beside runs that do less over the same bars.

``python -m stress.bench`` runs all of them in turn, several times, on the default simulated market and, where the
test data is at hand, on real bars; it prints medians and where the time goes. A benchmark, not a test: it asserts
nothing. The runs are

- *first*: every forecast is computed, into an empty forecast store;
- *again*: the same, with all forecasts in the store;
- *recorded*: the first run's signals are given again in the place of the detector, so that strategy and NT remain;
- *bare*: NT over the same bars with a strategy that does nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.config import LoggingConfig, StrategyConfig
from nautilus_trader.model.data import Bar, BarType
from nautilus_trader.model.enums import AccountType, OmsType
from nautilus_trader.model.objects import Money
from nautilus_trader.trading.strategy import Strategy

from data.ingest import IngestRequest, ingest
from data.market import Market
from regime.signal import BarRejected, Signal
from sage.backtest import STAGES, load_market, run_backtest
from sage.config import BacktestConfig

REAL_BARS = Path("crypto") / "BTC_USDT-30m.feather"


class DoesNothingConfig(StrategyConfig, frozen=True):
    """Which bars to hear."""

    bar_type: BarType


class DoesNothing(Strategy):
    """Hears every bar and leaves it at that."""

    def __init__(self, config: DoesNothingConfig) -> None:
        super().__init__(config)
        self._bar_type = config.bar_type

    def on_start(self) -> None:
        """Subscribe."""
        self.subscribe_bars(self._bar_type)

    def on_bar(self, bar: Bar) -> None:
        """Hear a bar."""


def bare_seconds(market: Market) -> float:
    """Seconds that NT takes to run the bars through a strategy that does nothing, engine set-up included."""
    started = time.perf_counter()
    engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True), run_analysis=False))
    engine.add_venue(
        venue=market.instrument.id.venue,
        oms_type=OmsType.NETTING,
        account_type=AccountType.MARGIN,
        starting_balances=[Money(100_000, market.instrument.quote_currency)],
    )
    engine.add_instrument(market.instrument)
    engine.add_data(market.nautilus_bars)
    engine.add_strategy(DoesNothing(DoesNothingConfig(bar_type=market.bar_type)))
    engine.run()
    engine.dispose()
    return time.perf_counter() - started


def measure(config: BacktestConfig, repeats: int, tell: Callable[[str], None]) -> dict[str, object]:
    """Run all four in turn and take medians; rates in bars per second, times in seconds."""
    market = load_market(config)
    bare: list[float] = []
    runs: dict[str, list[dict[str, float]]] = {"first": [], "again": [], "recorded": []}
    for repeat in range(repeats):
        bare.append(bare_seconds(market))
        with tempfile.TemporaryDirectory() as store:
            stored = dataclasses.replace(config, model=dataclasses.replace(config.model, store_dir=store))
            first = run_backtest(stored)
            again = run_backtest(stored)
        answers: list[Signal | BarRejected] = [*first.signals, *first.rejections]
        answers.sort(key=lambda answer: answer.ts_event)
        for name, run in (("first", first), ("again", again), ("recorded", run_backtest(config, recorded=answers))):
            runs[name].append(run.seconds)
        tell(f"{market.description}: round {repeat + 1} of {repeats}, first run {first.seconds['total']:.1f} s")
    median = {
        name: {stage: statistics.median(seconds[stage] for seconds in taken) for stage in (*STAGES, "total")}
        for name, taken in runs.items()
    }
    bars, bare_s = len(market.bars), statistics.median(bare)
    return {
        "data": market.description,
        "bars": bars,
        "repeats": repeats,
        "bars_per_second": {name: bars / seconds["total"] for name, seconds in median.items()}
        | {"bare": bars / bare_s, "engine": bars / median["again"]["engine"]},
        "ratio_again_to_recorded": median["again"]["total"] / median["recorded"]["total"],
        "ratio_engine_to_bare": median["again"]["engine"] / bare_s,
        "seconds": median,
    }


def real_data() -> Path | None:
    """The folder of real market data, if there is one."""
    named = os.environ.get("SAGE_TEST_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    return folder if folder.is_dir() else None


def main() -> int:
    """Command line of ``python -m stress.bench``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    results = [measure(BacktestConfig(), arguments.repeats, _tell)]
    folder = real_data()
    if folder is None:
        _tell("no real bars: set SAGE_TEST_DATA to a folder with " + str(REAL_BARS))
    else:
        with tempfile.TemporaryDirectory() as place:
            ingest(IngestRequest([folder / REAL_BARS], Path(place), "BTCUSDT.BINANCE"))
            config = BacktestConfig()
            data = dataclasses.replace(config.data, source="catalog", catalog=place, instrument="BTCUSDT.BINANCE")
            results.append(measure(dataclasses.replace(config, data=data), arguments.repeats, _tell))
    print(json.dumps(results, indent=2) if arguments.json else "\n\n".join(map(_lines, results)))
    return 0


def _tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _lines(result: dict[str, Any]) -> str:
    seconds, rate = result["seconds"], result["bars_per_second"]
    first = seconds["first"]
    shares = "   ".join(f"{stage} {first[stage]:.1f} s ({first[stage] / first['total']:.0%})" for stage in STAGES)
    return (
        f"{result['data']}, {result['bars']:,} bars, medians of {result['repeats']} runs\n"
        f"  first run          {rate['first']:>9,.0f} bars/s   ({first['total']:.2f} s)\n"
        f"  again, from store  {rate['again']:>9,.0f} bars/s   ({seconds['again']['total']:.2f} s)\n"
        f"  recorded signals   {rate['recorded']:>9,.0f} bars/s   ({seconds['recorded']['total']:.2f} s)\n"
        f"  again / recorded   {result['ratio_again_to_recorded']:>9,.2f} x\n"
        f"  engine part        {rate['engine']:>9,.0f} bars/s   (detector, strategy, NT)\n"
        f"  bare NautilusTrader{rate['bare']:>9,.0f} bars/s   (a strategy that does nothing)\n"
        f"  engine part / bare {result['ratio_engine_to_bare']:>9,.1f} x\n"
        f"  first run: {shares}"
    )


if __name__ == "__main__":
    sys.exit(main())
