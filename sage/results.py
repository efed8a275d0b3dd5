"""Figures of a run, all from our own books, signals and timings.

Every table has a fixed list of columns, but for that of the weights, which names the alphas. The determinism hash
covers the columns of signals, orders, fills and positions that depend on inputs and configuration alone.
"""

from __future__ import annotations

import hashlib
import math
import resource
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from operator import attrgetter

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.bars import iso
from regime.signal import Level, Signal
from sage.earnings import buy_and_hold, earnings
from sage.ledger import Fill
from sage.performance import until_ruin
from sage.run import BacktestRun, OrderRecord
from sage.votes import ensemble_figures, weights_table

FloatArray = NDArray[np.float64]

HASHED = ("signals", "orders", "fills", "positions")
"""The tables that the determinism hash covers."""

_TRIP_COLUMNS = [
    "opened_ns", "closed_ns", "closed", "side", "max_quantity", "average_open", "average_close", "realised_pnl",
    "commission", "fills",
]  # fmt: skip

ACCURACY_FROM_BAR = 200
"""Regimes are scored against true labels from this bar on, when every filter has settled."""


@dataclass(frozen=True)
class Tables:
    """The run as data frames, as they are written to disk."""

    signals: pd.DataFrame
    rejections: pd.DataFrame
    orders: pd.DataFrame
    fills: pd.DataFrame
    positions: pd.DataFrame
    equity: pd.DataFrame
    timing: pd.DataFrame
    weights: pd.DataFrame


def tables(run: BacktestRun) -> Tables:
    """Lay out a run as tables; times are nanoseconds since the epoch, UTC."""
    equity = _equity(run)
    equity["buy_and_hold"] = buy_and_hold(run, equity["ts_ns"].to_numpy(), equity["close"].to_numpy())
    worth = until_ruin(equity["equity"].to_numpy())
    equity["drawdown"] = worth / np.maximum.accumulate(np.concatenate([[run.config.cash], worth]))[1:] - 1.0
    return Tables(
        **hashed_tables(run),
        rejections=pd.DataFrame(
            [(rejected.ts_event, rejected.why) for rejected in run.rejections], columns=["ts_ns", "why"]
        ),
        equity=equity,
        timing=pd.DataFrame(
            [
                (ts, timing.source, timing.total_ms, timing.model_ms)
                for ts, timing in zip(run.answer_stamps, run.timings, strict=True)
            ],
            columns=["ts_ns", "source", "total_ms", "model_ms"],
        ),
        weights=weights_table(run.ensemble),
    )


def hashed_tables(run: BacktestRun) -> dict[str, pd.DataFrame]:
    """The tables that the determinism hash covers; they need no place in the market for any bar."""
    return {
        "signals": _signals(run.signals),
        "orders": pd.DataFrame(run.orders, columns=columns_of("orders")),
        "fills": pd.DataFrame(run.ledger.fills, columns=columns_of("fills")),
        "positions": round_trips(run.ledger.fills),
    }


def columns_of(table: str) -> list[str]:
    """The columns of a table that the determinism hash covers, in order."""
    records: dict[str, type[Signal] | type[OrderRecord] | type[Fill]] = {
        "signals": Signal, "orders": OrderRecord, "fills": Fill,
    }  # fmt: skip
    return [item.name for item in fields(records[table])] if table in records else [*_TRIP_COLUMNS]


def _equity(run: BacktestRun) -> pd.DataFrame:
    """The books at each accepted bar's close, with the fills at that close, which come after the strategy has acted."""
    fills = run.ledger.fills
    stamps = _stamps(run)
    close = closes_of_signals(run)
    filled_ns = np.array([fill.ts_ns for fill in fills], dtype=np.int64)
    signed = np.array([fill.side * fill.quantity for fill in fills])
    paid = np.array([fill.side * fill.quantity * fill.price + fill.commission for fill in fills])
    count = np.searchsorted(filled_ns, stamps, side="right")

    def so_far(amounts: FloatArray) -> FloatArray:
        total: FloatArray = np.concatenate([[0.0], np.cumsum(amounts)])[count]
        return total

    carries = run.ledger.carries
    accrued = np.searchsorted(np.array([carry.ts_ns for carry in carries], dtype=np.int64), stamps, side="right")
    funding, borrowing = (
        np.concatenate([[0.0], np.cumsum([getattr(carry, name) for carry in carries])])[accrued]
        for name in ("funding", "borrowing")
    )
    position = np.round(so_far(signed), 12)
    worth = run.config.cash - so_far(paid) - funding - borrowing + position * close
    return pd.DataFrame(
        {
            "ts_ns": stamps,
            "close": close,
            "equity": worth,
            "position": position,
            "exposure": np.divide(position * close, worth, out=np.zeros_like(worth), where=worth > 0),
            "costs": so_far(np.array([fill.commission for fill in fills])),
            "funding": funding,
            "borrowing": borrowing,
        }
    )


def _signals(signals: list[Signal]) -> pd.DataFrame:
    names = columns_of("signals")
    frame = pd.DataFrame([*map(attrgetter(*names), signals)], columns=names)
    if signals:
        frame["reasons"] = [",".join(signal.reasons) for signal in signals]
        frame["level"] = [int(signal.level) for signal in signals]
        frame["direction"] = [str(signal.direction) for signal in signals]
        frame["volatility_state"] = [str(signal.volatility_state) for signal in signals]
    return frame


def round_trips(fills: list[Fill]) -> pd.DataFrame:
    """Positions from flat to flat. One still open at the end is listed with ``closed`` False and marked nowhere."""
    rows: list[tuple[object, ...]] = []
    group: list[Fill] = []
    held = 0.0
    for fill in fills:
        group.append(fill)
        held = round(held + fill.side * fill.quantity, 12)
        if held == 0.0:
            rows.append(_trip(group, closed=True))
            group = []
    if group:
        rows.append(_trip(group, closed=False))
    return pd.DataFrame(rows, columns=_TRIP_COLUMNS)


def _trip(group: list[Fill], *, closed: bool) -> tuple[object, ...]:
    side = group[0].side
    opening = [fill for fill in group if fill.side == side]
    closing = [fill for fill in group if fill.side != side]
    held = np.cumsum([fill.side * fill.quantity for fill in group])
    average_open = _average_price(opening)
    average_close = _average_price(closing)
    commission = sum(fill.commission for fill in group)
    closed_quantity = sum(fill.quantity for fill in closing)
    pnl = side * closed_quantity * (average_close - average_open) if closing else 0.0
    return (
        group[0].ts_ns, group[-1].ts_ns if closed else 0, closed, side, float(np.abs(held).max()), average_open,
        average_close, pnl - commission, commission, len(group),
    )  # fmt: skip


def _average_price(fills: list[Fill]) -> float:
    quantity = sum(fill.quantity for fill in fills)
    return sum(fill.quantity * fill.price for fill in fills) / quantity if quantity else math.nan


def determinism_hash(tabled: Tables) -> str:
    """Sha256 over the columns of signals, orders, fills and positions; floats by their exact bits."""
    return hash_of({name: getattr(tabled, name) for name in HASHED})


def determinism_hash_of(run: BacktestRun) -> str:
    """The same without the other tables, which a run whose bars were stamped anew does not have."""
    return hash_of(hashed_tables(run))


def hash_of(frames: Mapping[str, pd.DataFrame]) -> str:
    """The determinism hash of these tables, in the order of :data:`HASHED`."""
    digest = hashlib.sha256()
    for name in HASHED:
        frame = frames[name]
        for column in frame.columns:
            digest.update(f"{name}.{column}:{len(frame)};".encode())
            values = frame[column]
            if values.dtype == object:
                digest.update("\x1f".join(map(str, values)).encode())
            else:
                digest.update(np.ascontiguousarray(values.to_numpy()).tobytes())
    return digest.hexdigest()


def summary(run: BacktestRun, tabled: Tables) -> dict[str, object]:
    """The headline figures; see README for what each means."""
    levels = Counter(signal.level.name for signal in run.signals)
    regimes = Counter(f"{signal.direction}-{signal.volatility_state}" for signal in run.signals)
    return {
        "instrument": str(run.market.instrument.id),
        "bar": str(run.market.size),
        "data": run.market.description,
        "bars": len(run.market.bars),
        "signals": len(run.signals),
        "rejected_bars": len(run.rejections),
        "levels": {level.name: levels[level.name] for level in Level},
        "regimes": dict(sorted(regimes.items())),
        "warm_up_bars": sum(signal.is_warm_up for signal in run.signals),
        "fault_reasons": _fault_reasons(run.signals),
        "orders": len(run.orders),
        "rejected_orders": len(run.refused_orders),
        "ignored_signals": sum(run.ignored_signals.values()),
        "fills": len(run.ledger.fills),
        "round_trips": int(tabled.positions["closed"].sum()) if len(tabled.positions) else 0,
        "nautilus_equity": run.nautilus_equity,
        **earnings(run, tabled.equity),
        "average_exposure": float(tabled.equity["exposure"].abs().mean()) if len(tabled.equity) else 0.0,
        "ensemble": ensemble_figures(run.ensemble),
        "coverage": coverage(run, tabled.signals),
        "regime_accuracy": regime_accuracy(run),
        "latency_ms": latency(tabled.timing),
        "missed_deadlines": _missed_deadlines(run),
        "forecasts": run.forecasts_made,
        "forecasts_computed": run.forecasts_computed,
        "forecasts_reused": run.forecasts_reused,
        "engine": run.engine_name or None,
        "notes": run.notes,
        "partial": _partial(run),
        "forecast_failures": run.forecast_failures,
        "model_restarts": run.model_restarts,
        "breaker_opened": run.breaker_opened,
        "alerts": dict(sorted(Counter(alert.name for alert in run.alerts if alert.raised).items())),
        "reproducible": _reproducible(run),
        "bars_per_second": len(run.market.bars) / run.seconds["total"],
        "seconds": {name: round(value, 3) for name, value in run.seconds.items()},
        "peak_rss_mb": _peak_rss_bytes() / 1e6,
        "model_peak_rss_mb": run.model_peak_rss_bytes / 1e6,
        "determinism_hash": determinism_hash(tabled),
    }


def _partial(run: BacktestRun) -> dict[str, object] | None:
    """How far a run came that a user's class ended; None for a whole one."""
    if run.stopped is None:
        return None
    return {"bars_seen": len(run.timings), "last_bar": iso(run.answer_stamps[-1]), "why": str(run.stopped)}


def coverage(run: BacktestRun, signals: pd.DataFrame, first_row: int = 0) -> dict[str, float | int | None]:
    """Share of realised horizon returns inside the interval, at level FULL and over all levels.

    Unbounded intervals count as misses: they promise nothing. Signals before ``first_row`` are left out.
    """
    horizon = run.config.regime.horizon_bars
    nominal = 1.0 - run.config.regime.calibration.miscoverage
    inside, full = (rows[first_row:] for rows in _inside_interval(run, signals, horizon))
    return {
        "nominal": nominal,
        "realised": float(inside[full].mean()) if full.any() else None,
        "realised_all_levels": float(inside.mean()) if len(inside) else None,
        "forecasts": int(full.sum()),
        "horizon_bars": horizon,
    }


def of_window(run: BacktestRun, tabled: Tables, from_ns: int) -> tuple[pd.DataFrame, dict[str, object]]:
    """The rows of equity from a time on, and what they come to: earnings, and coverage of what was asked since."""
    first_row = int(np.searchsorted(tabled.equity["ts_ns"].to_numpy(), from_ns))
    rows = tabled.equity.iloc[first_row:].reset_index(drop=True)
    return rows, earnings(run, rows) | {"coverage": coverage(run, tabled.signals, first_row)}


def _inside_interval(
    run: BacktestRun, signals: pd.DataFrame, horizon: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    close = closes_of_signals(run)
    if len(close) <= horizon:
        return np.empty(0, dtype=bool), np.empty(0, dtype=bool)
    realised = np.log(close[horizon:] / close[:-horizon])
    rows = signals.iloc[: len(realised)]
    low, high = rows["interval_low"].to_numpy(), rows["interval_high"].to_numpy()
    inside = (realised >= low) & (realised <= high) & np.isfinite(low) & np.isfinite(high)
    return inside, (rows["level"] == Level.FULL).to_numpy()


def _stamps(run: BacktestRun) -> NDArray[np.int64]:
    """The close time of each accepted bar, nanoseconds."""
    return np.fromiter((signal.ts_event for signal in run.signals), dtype=np.int64, count=len(run.signals))


def closes_of_signals(run: BacktestRun) -> FloatArray:
    """The close of each accepted bar."""
    close: FloatArray = run.market.bars.close[np.searchsorted(run.market.bars.ts_close_ns, _stamps(run))]
    return close


def regime_accuracy(run: BacktestRun) -> dict[str, float] | None:
    """Balanced accuracy (mean recall over the true classes) of direction and volatility state; None without labels."""
    labels = run.market.labels
    if labels is None or len(run.signals) <= ACCURACY_FROM_BAR:
        return None
    rows = np.searchsorted(run.market.bars.ts_close_ns, _stamps(run))[ACCURACY_FROM_BAR:]
    found = run.signals[ACCURACY_FROM_BAR:]
    direction = np.array([str(signal.direction) for signal in found])
    volatility = np.array([str(signal.volatility_state) for signal in found])
    return {
        "direction": balanced_accuracy(labels.direction[rows], direction),
        "volatility": balanced_accuracy(labels.volatility[rows], volatility),
        "from_bar": ACCURACY_FROM_BAR,
    }


def balanced_accuracy(truth: NDArray[np.str_], found: NDArray[np.str_]) -> float:
    """Mean over the true classes of the share that was found."""
    return float(np.mean([(found[truth == name] == name).mean() for name in np.unique(truth)]))


def forecasts_from(source: str) -> str:
    """For people: where the forecasts came from whose latency is told (``source`` as in :func:`latency`)."""
    sources = {"none": "no forecasts asked for", "store": "forecasts made ahead"}
    return sources.get(source, f"forecasts from the {source}")


def latency(timing: pd.DataFrame) -> dict[str, object]:
    """Milliseconds from bar in to signal out, over the bars that needed a forecast, by where it came from."""
    sources = [source for source in ("model", "store") if (timing["source"] == source).any()]
    source = sources[0] if sources else "none"
    of_source = timing.loc[timing["source"] == source, "total_ms"].to_numpy()
    if len(of_source) == 0:
        return {"source": source, "bars": 0, "p50": None, "p99": None, "max": None}
    return {
        "source": source,
        "bars": len(of_source),
        "p50": float(np.percentile(of_source, 50)),
        "p99": float(np.percentile(of_source, 99)),
        "max": float(of_source.max()),
    }


def _missed_deadlines(run: BacktestRun) -> int | None:
    """Signals that came later than the deadline by this machine's clock; None without a deadline."""
    deadline_ms = run.config.regime.deadline_ms
    return sum(timing.total_ms > deadline_ms for timing in run.timings) if deadline_ms else None


def _fault_reasons(signals: list[Signal]) -> dict[str, int]:
    counts = Counter(str(reason) for signal in signals for reason in set(signal.reasons) if reason.is_fault)
    return dict(sorted(counts.items()))


def _reproducible(run: BacktestRun) -> bool:
    """False where an outcome hung on the clock of this machine: a deadline, a time-out, a process that died."""
    by_clock = {"TIMEOUT", "MODEL_DIED", "MODEL_UNAVAILABLE", "OUT_OF_MEMORY", "STALE_ANSWER"}
    return not run.config.regime.deadline_ms and not by_clock & set(run.forecast_failures)


def _peak_rss_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
