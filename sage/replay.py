"""A run again, from its directory: the recorded signals in the detector's place, the same bars, the same hash.

What hung on the clock of the machine, time-outs and deaths of the model, lies in the signals; the rest of a run
depends on its inputs alone. So a replay in any process gives the hash of the run, or the first difference.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow

from data.bars import iso
from data.errors import DataError
from data.market import Market
from data.places import sha256_of
from regime.signal import BarRejected, Direction, Level, Reason, Signal, VolatilityState
from sage.backtest import load_market, run_backtest
from sage.compare import Difference, difference_report, first_difference
from sage.config import BacktestConfig
from sage.progress import Progress
from sage.results import HASHED, columns_of, hash_of, hashed_tables
from sage.run import BacktestRun
from sage.rundir import SCHEMA_VERSION
from sage.votes import slow_votes

_AGAIN = "make the run again with sage backtest"

_FROM_TABLE: dict[str, Callable[[Any], Any]] = {
    "direction": Direction,
    "volatility_state": VolatilityState,
    "level": Level,
    "reasons": lambda text: tuple(Reason(reason) for reason in text.split(",") if reason),
}


@dataclass(frozen=True)
class Recording:
    """A run directory, read and found whole.

    ``tables`` are those that ``hash`` covers; ``answers`` are the detector's, one a bar. ``own`` holds the sha256 of
    the user's classes, by option; ``partial`` says what ended the run before its last bar, if anything did.
    ``slow_votes`` are those that alphas gave too late, by (ts_ns, alpha).
    """

    directory: Path
    config: BacktestConfig
    bars: dict[str, Any]
    closes: pd.DataFrame
    answers: list[Signal | BarRejected]
    tables: dict[str, pd.DataFrame]
    hash: str
    own: dict[str, str]
    partial: str | None
    slow_votes: frozenset[tuple[int, str]] = frozenset()


@dataclass(frozen=True)
class Replay:
    """How a replay came out: ``difference`` is None where its hash is that of the recording."""

    run: BacktestRun
    recorded_hash: str
    hash: str
    difference: Difference | None
    notes: list[str]

    @property
    def same(self) -> bool:
        """True where the hashes agree."""
        return self.hash == self.recorded_hash and self.difference is None


def replay(recording: Recording, progress: Progress | None = None, catalog: Path | None = None) -> Replay:
    """Run a recording again.

    Parameters
    ----------
    recording
        What :func:`read_recording` found.
    progress
        Hears how far the run is.
    catalog
        Where the run's catalog lies now, if not where it lay.

    Raises
    ------
    DataError
        If the bars are no longer those of the run; the message says what differs.
    """
    config = recording.config
    if catalog is not None:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, catalog=str(catalog)))
    market = load_market(config)
    _require_same_bars(recording, market)
    run = run_backtest(config, progress, recording.answers, market=market, slow_votes=recording.slow_votes)
    again = hashed_tables(run)
    difference = first_difference(recording.tables, again)
    stopped = str(run.stopped) if run.stopped is not None else None
    if difference is None and stopped != recording.partial:
        ts_ns = run.answer_stamps[-1]
        difference = Difference("partial", len(run.answer_stamps) - 1, ts_ns, "why", recording.partial, stopped)
    notes = [
        f"{source.spec} has changed since the run: the sha256 of {source.file} was {recording.own[option]}, and is now "
        f"{source.sha256}"
        for option, source in run.own.items()
        if recording.own.get(option, source.sha256) != source.sha256
    ]
    return Replay(run, recording.hash, hash_of(again), difference, notes)


def read_recording(directory: Path) -> Recording:
    """Read a run directory.

    Raises
    ------
    DataError
        If it is none, of another version, damaged, or altered; the message names the file.
    """
    if not directory.is_dir():
        raise DataError(f"{directory}: no such directory; give one that sage backtest has written")
    if (directory / "walk_forward.json").exists():
        raise DataError(f"{directory}: a walk-forward, of which no signals are recorded: there is nothing to replay")
    manifest, summary = _read_json(directory / "manifest.json"), _read_json(directory / "summary.json")
    version = manifest.get("schema_version")
    if version != SCHEMA_VERSION:
        raise DataError(
            f"{directory / 'manifest.json'}: a run of format {version}, this version of SAGE replays format "
            f"{SCHEMA_VERSION}; {_AGAIN}, or replay it with the version that made it"
        )
    try:
        config = msgspec.convert(manifest["config"], BacktestConfig)
        bars, own = dict(manifest["data"]), {option: found["sha256"] for option, found in manifest["own"].items()}
        partial, recorded_hash, instrument_id = manifest["partial"], summary["determinism_hash"], bars["instrument"]
        files = {str(name): str(digest) for name, digest in manifest["files"].items()}
        if lacking := {"sha256", "bars", "last_close"} - set(bars):
            raise LookupError(f"data has no {lacking.pop()}")
    except (LookupError, TypeError, AttributeError, msgspec.ValidationError) as error:
        raise DataError(
            f"{directory}: manifest.json or summary.json is not as it was written ({error}); {_AGAIN}"
        ) from error
    _require_unaltered(directory, files)
    tables = {name: _read_table(directory / f"{name}.parquet", columns_of(name)) for name in HASHED}
    rejections = _read_table(directory / "rejections.parquet", ["ts_ns", "why"])
    closes = _read_table(directory / "equity.parquet", ["ts_ns", "close"])
    found = hash_of(tables)
    if found != recorded_hash:
        raise DataError(
            f"{directory}: altered since it was written: its tables give the hash {found}, and summary.json has "
            f"{recorded_hash}; {_AGAIN}"
        )
    answers: list[Signal | BarRejected] = [*_signals(directory / "signals.parquet", tables["signals"])]
    answers += [BarRejected(instrument_id, why, ts, ts) for ts, why in rejections.itertuples(index=False)]
    answers.sort(key=lambda answer: answer.ts_event)
    late = slow_votes(_read_table(directory / "weights.parquet", ["ts_ns"], whole=True))
    return Recording(directory, config, bars, closes, answers, tables, recorded_hash, own, partial, late)


def _require_unaltered(directory: Path, files: dict[str, str]) -> None:
    """Raise DataError for the first file that is not as it was when the run was written."""
    for name, digest in files.items():
        path = directory / name
        try:
            found = sha256_of(path)
        except FileNotFoundError as error:
            raise DataError(f"{path} is missing; {_AGAIN}") from error
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror or error}); {_AGAIN}") from error
        if found != digest:
            raise DataError(
                f"{path}: altered or damaged since it was written (its sha256 is not that in manifest.json); {_AGAIN}"
            )


def as_report(found: Replay) -> dict[str, Any]:
    """The outcome, plain enough for JSON."""
    return {
        "same": found.same,
        "recorded_hash": found.recorded_hash,
        "hash": found.hash,
        "bars": len(found.run.timings),
        "signals": len(found.run.signals),
        "difference": None if found.difference is None else difference_report(found.difference),
        "notes": found.notes,
    }


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing: no run directory, or not a whole one; {_AGAIN}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({error}); {_AGAIN}") from error
    if not isinstance(document, dict):
        raise DataError(f"{path} is damaged (no JSON object); {_AGAIN}")
    return document


def _read_table(path: Path, columns: list[str], *, whole: bool = False) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(path)
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; {_AGAIN}") from error
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} is damaged ({str(error).splitlines()[0]}); {_AGAIN}") from error
    lacking = [name for name in columns if name not in frame]
    if lacking:
        raise DataError(f"{path} has no column {', '.join(lacking)}: of another version, or damaged; {_AGAIN}")
    return frame if whole else frame[columns]


def _signals(path: Path, frame: pd.DataFrame) -> list[Signal]:
    columns: list[list[Any]] = []
    try:
        for name in columns_of("signals"):
            read = _FROM_TABLE.get(name)
            values = frame[name].tolist()
            columns.append([read(value) for value in values] if read is not None else values)
    except ValueError as error:
        raise DataError(f"{path} is of another version, or damaged: {error}; {_AGAIN}") from error
    return [Signal(*row) for row in zip(*columns, strict=True)]


def _require_same_bars(recording: Recording, market: Market) -> None:
    recorded, bars = recording.bars, market.bars
    if bars.sha256() != recorded["sha256"]:
        raise DataError(
            f"{recording.directory}: the bars have changed since the run: {_what_changed(recording, market)}. "
            f"Bring the old bars back, or {_AGAIN}"
        )
    stamps = np.fromiter((answer.ts_event for answer in recording.answers), np.int64, len(recording.answers))
    if not np.array_equal(stamps, bars.ts_close_ns[: len(stamps)]) or (
        recording.partial is None and len(stamps) != len(bars)
    ):
        raise DataError(f"{recording.directory / 'signals.parquet'}: signals of other bars than the run's; {_AGAIN}")


def _what_changed(recording: Recording, market: Market) -> str:
    """In words: how many there are, and the first close that differs."""
    recorded, bars = recording.bars, market.bars
    if str(market.bar_type) != recorded.get("bar_type"):
        return f"they were {recorded.get('bar_type')}, and are {market.bar_type}"
    told = []
    if len(bars) != recorded["bars"] or iso(int(bars.ts_close_ns[-1])) != recorded["last_close"]:
        told.append(
            f"there were {recorded['bars']:,} until {recorded['last_close']}, and are {len(bars):,} until "
            f"{iso(int(bars.ts_close_ns[-1]))}"
        )
    closes = recording.closes.set_index("ts_ns")["close"]
    now = pd.Series(bars.close, index=bars.ts_close_ns)
    both = pd.DataFrame({"then": closes, "now": now.reindex(closes.index)})
    differing = both[both["then"] != both["now"]]
    if len(differing):
        ts_ns, then, found = int(differing.index[0]), differing["then"].iloc[0], differing["now"].iloc[0]
        has = "is not there any more" if np.isnan(found) else f"is {found:.12g}"
        told.append(f"the close at {iso(ts_ns)} was {then:.12g}, and {has}")
    return "; ".join(told) or "the closes are the same; an open, high, low or volume is not"
