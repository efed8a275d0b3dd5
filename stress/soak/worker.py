"""What runs in the processes of a soak: one side each, told what to play through a pipe."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path

from data.errors import DataError, OptionError
from data.market import Market, catalog_market
from regime.errors import ModelUnavailable, UserCodeRaised
from sage.config import DataConfig
from stress.soak.config import SoakConfig
from stress.soak.control import ControlSide
from stress.soak.heap import make_room_for_names
from stress.soak.market import EndlessMarket
from stress.soak.messages import Begin, Failed, HandedOver, HandOver, Play, Ready
from stress.soak.trading import TradingSide

KINDS: dict[str, type[Exception]] = {
    "option": OptionError,
    "data": DataError,
    "model": ModelUnavailable,
    "user": UserCodeRaised,
}
"""What a worker may fail of that is somebody's else fault than SAGE's, by the name under which it is told."""


def endless_market(config: SoakConfig) -> EndlessMarket:
    """Where the bars of a soak come from. Raises OptionError or DataError where there are none."""
    regime = config.backtest.regime
    history = _history(config.backtest.data)
    seconds = history.size.seconds if history is not None else config.backtest.data.synthetic.bar_seconds
    gap_s = (regime.max_gap_bars + 2) * seconds + regime.closure_seconds
    return EndlessMarket(config.bars_a_segment, gap_s, config.seed, history)


def _history(data: DataConfig) -> Market | None:
    stray = [name for name in ("catalog", "instrument", "bar", "start", "end") if getattr(data, name) is not None]
    if data.source != "catalog" and stray:
        raise OptionError(f"--{stray[0]} goes with --catalog")
    if data.source == "synthetic":
        return None
    if data.source != "catalog":
        raise OptionError(f"--data {data.source}: a soak runs on simulated bars, or on a catalog's with --catalog")
    if data.catalog is None or data.instrument is None:
        raise OptionError("a catalog needs its directory and an instrument: --catalog DIR --instrument ID")
    return catalog_market(Path(data.catalog), data.instrument, data.bar, data.start, data.end)


def trade_segments(pipe: Connection, config: SoakConfig) -> None:
    """The trading process."""
    with _telling(pipe):
        begin = pipe.recv()
        assert isinstance(begin, Begin)
        with TradingSide(config, endless_market(config), begin.generation, pipe.send, begin.plants) as side:
            if begin.state is not None:
                side.restore(begin.state)
            pipe.send(side.introduction())
            while isinstance(order := pipe.recv(), Play):
                pipe.send(side.play(order.segment, sampled=order.sampled))
            if isinstance(order, HandOver):
                pipe.send(HandedOver(side.snapshot()))


def trade_bare_segments(pipe: Connection, config: SoakConfig) -> None:
    """A trading process that nobody looks into."""
    _trade_unjudged(pipe, config, bare=True)


def trade_watched_segments(pipe: Connection, config: SoakConfig) -> None:
    """A trading process that is watched, and not judged."""
    _trade_unjudged(pipe, config, bare=False)


def _trade_unjudged(pipe: Connection, config: SoakConfig, *, bare: bool) -> None:
    with _telling(pipe):
        begin = pipe.recv()
        assert isinstance(begin, Begin)
        market = endless_market(config)
        with TradingSide(config, market, begin.generation, pipe.send, bare=bare, judged=False) as side:
            pipe.send(side.introduction())
            while isinstance(order := pipe.recv(), Play):
                pipe.send(side.play(order.segment))


def control_segments(pipe: Connection, config: SoakConfig) -> None:
    """The control process."""
    with _telling(pipe):
        begin = pipe.recv()
        assert isinstance(begin, Begin)
        side = ControlSide(config.backtest, endless_market(config), begin.generation, pipe.send)
        pipe.send(Ready(0, {}))
        while isinstance(order := pipe.recv(), Play):
            pipe.send(side.play(order.segment, order.orders, sampled=order.sampled))


@contextmanager
def _telling(pipe: Connection) -> Iterator[None]:
    """A worker's life: tell through the pipe what a side raises; end quietly where nobody listens any more."""
    # Ctrl-C goes to all processes of a terminal; the one that watches decides what becomes of the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What a user's code prints is a message; stdout is for the result, and not this process's.
    os.dup2(2, 1)
    make_room_for_names()
    try:
        yield
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception as error:
        name = next((name for name, cls in KINDS.items() if isinstance(error, cls)), "internal")
        trace = error.trace if isinstance(error, UserCodeRaised) else "".join(traceback.format_exception(error))
        with suppress(OSError):
            pipe.send(Failed(str(error) or type(error).__name__, trace, name))
