"""Successive windows outside the sample, each after bars to learn from and an embargo."""

from __future__ import annotations

from dataclasses import dataclass

from data.errors import DataError, OptionError

TEST_BARS_MIN = 20


@dataclass(frozen=True)
class WindowConfig:
    """Windows of ``test_bars`` that follow each other, the first one after ``train_bars``.

    Detector, calibration and alphas learn from all bars before a window, or with ``rolling`` from the last
    ``train_bars`` before its embargo. ``embargo_bars`` lie between two windows, and before the first: none of their
    returns counts for any, so that no forecast made in one window has its outcome in the next. None is the horizon.
    """

    train_bars: int
    test_bars: int
    rolling: bool = False
    embargo_bars: int | None = None


@dataclass(frozen=True)
class Window:
    """Rows of a market: orders are sent and counted from ``start`` to ``stop``, not included, after ``first``."""

    number: int
    first: int
    start: int
    stop: int


def windows_of(bars: int, config: WindowConfig, horizon_bars: int, where: str) -> list[Window]:
    """The windows of so many bars; a rest shorter than half a window goes to the last one, a longer one is its own.

    Raises
    ------
    OptionError
        If the configuration makes no sense whatever the bars.
    DataError
        If there are too few bars for one window; ``where`` names them.
    """
    embargo = horizon_bars if config.embargo_bars is None else config.embargo_bars
    if config.test_bars < TEST_BARS_MIN:
        raise OptionError(f"--test-bars {config.test_bars}: must be {TEST_BARS_MIN} or more")
    if config.train_bars < 1:
        raise OptionError(f"--train-bars {config.train_bars}: must be 1 or more")
    if embargo < horizon_bars:
        raise OptionError(
            f"--embargo-bars {embargo}: must be {horizon_bars} or more, the horizon; a forecast made in one window "
            "would have its outcome in the next"
        )
    found: list[Window] = []
    start = config.train_bars + embargo
    while start + config.test_bars <= bars:
        first = max(0, start - embargo - config.train_bars) if config.rolling else 0
        found.append(Window(len(found) + 1, first, start, start + config.test_bars))
        start += config.test_bars + embargo
    if not found:
        raise DataError(
            f"{where}: {bars:,} bars are too few: {config.train_bars:,} to learn from, an embargo of {embargo} and a "
            f"window of {config.test_bars:,} make {config.train_bars + embargo + config.test_bars:,}; take smaller "
            "--train-bars or --test-bars, or more bars"
        )
    last = found[-1]
    if bars - start >= max(TEST_BARS_MIN, config.test_bars / 2):
        first = max(0, start - embargo - config.train_bars) if config.rolling else 0
        found.append(Window(last.number + 1, first, start, bars))
    else:
        found[-1] = Window(last.number, last.first, last.start, bars)
    return found
