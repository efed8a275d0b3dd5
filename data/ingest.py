"""From foreign files to a catalog: find, read, check, report, write."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.model.instruments import Instrument

from data import quality
from data.bars import Bars, BarSize
from data.catalog import BarCatalog, Outcome, describe_interval, rounded
from data.errors import DataError
from data.instruments import (
    Kind,
    Precision,
    guess_kind,
    infer_precision,
    kind_of,
    make_instrument,
    parse_instrument_id,
)
from data.quality import QualityReport
from data.sources import RawBars, ReadOptions, read_source
from data.spreads import HourlySpreads
from data.two_sided import Side, middle

BAR_FILE_SUFFIXES = (".feather", ".csv", ".csv.gz", ".txt", ".tsv", ".zip", ".parquet")
REPORTS_DIR = "ingest-reports"

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and of how much."""


@dataclass(frozen=True)
class IngestRequest:
    """What to ingest, as what, and where to. Where ``ask`` names files, ``sources`` are the bid side."""

    sources: Sequence[Path]
    catalog: Path
    instrument: str
    ask: Sequence[Path] = ()
    bar: str | None = None
    read: ReadOptions = field(default_factory=ReadOptions)
    kind: Kind | None = None
    price_precision: int | None = None
    size_precision: int | None = None
    strict: bool = False


@dataclass(frozen=True)
class IngestResult:
    """What an ingest did. ``report_path`` and ``rejected_path`` are where the details lie.

    ``spreads`` are those of this ingest, where both sides were given.
    """

    instrument: str
    bar: str
    layouts: dict[str, str]
    outcome: Outcome
    bars_written: int
    bars_before: int
    interval: str
    price_precision: int
    size_precision: int
    kind: str
    quality: QualityReport
    report_path: Path
    rejected_path: Path | None
    spreads: HourlySpreads | None = None

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "instrument": self.instrument,
            "bar": self.bar,
            "layouts": self.layouts,
            "kind": self.kind,
            "outcome": str(self.outcome),
            "rows_written": self.bars_written,
            "rows_before": self.bars_before,
            "interval": self.interval,
            "price_precision": self.price_precision,
            "size_precision": self.size_precision,
            "report": str(self.report_path),
            "rejected_file": str(self.rejected_path) if self.rejected_path else None,
            "half_spread_bps_by_hour": _by_hour(self.spreads),
            **self.quality.as_dict(),
        }


class StrictRejection(DataError):
    """Rows were rejected under ``--strict``; nothing was written but the report."""


def ingest(request: IngestRequest, on_progress: Progress | None = None) -> IngestResult:
    """Ingest files of one instrument into a catalog.

    Raises
    ------
    DataError
        If the files are bad; nothing is then written to the catalog.
    OptionError
        If the options make no sense.
    """
    tell = on_progress or _tell_nobody
    instrument_id = parse_instrument_id(request.instrument)
    given_size = BarSize.parse(request.bar) if request.bar is not None else None
    files = find_files([*request.sources, *request.ask])
    raws = _read_all(files, request.read, tell)
    size = quality.infer_bar_size(raws, given_size)
    tell("checking", 0, 1)
    bars, spreads, report, rejected = _checked(raws, size, len(find_files(request.ask)))
    tell("checking", 1, 1)
    report.notes.extend(dict.fromkeys(note for raw in raws for note in raw.notes))
    if len(bars) == 0:
        why = ", ".join(f"{count} {reason}" for reason, count in report.rejected.items())
        raise DataError(f"{files[0]}: no bars, all {report.rows_read} rows are rejected: {why}")

    catalog = BarCatalog(request.catalog, create=True)
    instrument = _instrument_for(bars, instrument_id, request, catalog, report.notes)
    _require_positive_when_rounded(bars, instrument.price_precision, files[0])

    stem = _report_stem(str(instrument_id), size, files)
    report_path, rejected_path = _write_rejected(request.catalog, stem, rejected)
    if request.strict and report.rows_rejected:
        _write_json(report_path, {"outcome": "rejected (--strict)", **report.as_dict()})
        raise StrictRejection(
            f"{report.rows_rejected} of {report.rows_read} rows rejected under --strict; nothing was written. "
            f"The rows are in {rejected_path}"
        )
    bars_done = 0

    def wrote(step: int) -> None:
        nonlocal bars_done
        bars_done += step
        tell("writing", bars_done, len(bars))

    written = catalog.write(bars, instrument, size, wrote)
    if spreads is not None:
        catalog.write_spreads(spreads, instrument, size)
    elif written.outcome is not Outcome.UNCHANGED:
        # What was measured on other bars says nothing of these.
        span = int(bars.ts_close_ns[0]), int(bars.ts_close_ns[-1])
        if hours := catalog.drop_spreads(instrument, size, *span):
            report.notes.append(f"spreads of {hours:,} hours dropped: they were measured on the bars now replaced")
    result = IngestResult(
        instrument=str(instrument_id),
        bar=str(size),
        layouts={str(raw.path): raw.layout for raw in raws},
        outcome=written.outcome,
        bars_written=0 if written.outcome is Outcome.UNCHANGED else len(bars),
        bars_before=written.bars_before,
        interval=describe_interval(bars),
        price_precision=instrument.price_precision,
        size_precision=instrument.size_precision,
        kind=str(kind_of(instrument)),
        quality=report,
        report_path=report_path,
        rejected_path=rejected_path,
        spreads=spreads,
    )
    provenance = {"sources": {str(path): _file_sha256(path) for path in files}, "bars_sha256": bars.sha256()}
    if result.outcome is not Outcome.UNCHANGED or not _tells(report_path, report.as_dict() | provenance):
        _write_json(report_path, result.as_dict() | provenance)
    return result


def _read_all(files: list[Path], options: ReadOptions, tell: Progress) -> list[RawBars]:
    raws: list[RawBars] = []
    for done, path in enumerate(files):
        tell("reading", done, len(files))
        raws.append(read_source(path, options))
    tell("reading", len(files), len(files))
    return raws


def _checked(
    raws: list[RawBars], size: BarSize, asks: int
) -> tuple[Bars, HourlySpreads | None, QualityReport, pd.DataFrame]:
    """Bars out of the files, of which the last ``asks`` are the ask side; spreads where there are both."""
    if not asks:
        bars, report, rejected = quality.check(raws, size)
        return bars, None, report, rejected
    bid, ask = (Side(side[0].path, *quality.check(side, size)) for side in (raws[:-asks], raws[-asks:]))
    return middle(bid, ask, size)


def _by_hour(spreads: HourlySpreads | None) -> list[float | None] | None:
    """Mean half-spread of each hour of the day, UTC, for JSON; None where nothing is known."""
    if spreads is None:
        return None
    return [round(float(value), 4) if np.isfinite(value) else None for value in spreads.by_hour_of_day()]


def _instrument_for(
    bars: Bars, instrument_id: InstrumentId, request: IngestRequest, catalog: BarCatalog, notes: list[str]
) -> Instrument:
    """The instrument as its first ingest fixed it, or a new one as precise as its bars; notes what gets rounded."""
    instrument = catalog.instrument(str(instrument_id))
    kind = kind_of(instrument) if instrument is not None else request.kind or guess_kind(instrument_id)
    inferred, precision_notes = infer_precision(bars, kind)
    notes.extend(precision_notes)
    if instrument is None:
        wanted = Precision(
            inferred.price if request.price_precision is None else request.price_precision,
            inferred.size if request.size_precision is None else request.size_precision,
        )
        instrument = make_instrument(instrument_id, kind, wanted)
    else:
        _require_as_fixed(request, instrument, kind, inferred.price)
    if instrument.price_precision < inferred.price:
        notes.append(f"prices rounded to {instrument.price_precision} decimals, as asked")
    if not np.allclose(rounded(bars, instrument).volume, bars.volume, rtol=1e-12, atol=0.0):
        notes.append(f"volume rounded to the instrument's {instrument.size_precision} decimals")
    return instrument


def find_files(sources: Sequence[Path]) -> list[Path]:
    """The files meant by paths: files as given, directories by the suffixes of bar files.

    Raises
    ------
    DataError
        If a directory holds none, or the same file is named twice.
    """
    found: list[Path] = []
    for source in sources:
        if source.is_dir():
            inside = sorted(path for path in source.iterdir() if _is_bar_file(path))
            if not inside:
                raise DataError(f"{source}: a directory without bar files ({', '.join(BAR_FILE_SUFFIXES)})")
            found.extend(inside)
        else:
            found.append(source)
    places = Counter(path.resolve() for path in found)
    twice = {str(path) for path in found if places[path.resolve()] > 1}
    if twice:
        raise DataError(f"{', '.join(sorted(twice))}: named more than once")
    return found


def _is_bar_file(path: Path) -> bool:
    # Hidden files are an editor's or another system's ("._BTC.csv"), whatever their suffix.
    return path.name.lower().endswith(BAR_FILE_SUFFIXES) and not path.name.startswith(".") and path.is_file()


def _tell_nobody(what: str, done: int, total: int) -> None:
    """Progress that nobody asked for."""


def _require_as_fixed(request: IngestRequest, instrument: Instrument, kind: Kind, needed: int) -> None:
    """Raise DataError where options or prices do not fit the instrument as its first ingest fixed it."""
    fixed = {"kind": kind, "price decimals": instrument.price_precision, "size decimals": instrument.size_precision}
    asked = {"kind": request.kind, "price decimals": request.price_precision, "size decimals": request.size_precision}
    for what, value in asked.items():
        if value is not None and value != fixed[what]:
            raise DataError(
                f"{instrument.id}: {what} {value} asked for, but the first ingest into {request.catalog} fixed "
                f"{fixed[what]}; ingest into a new catalog to change it"
            )
    if request.price_precision is None and needed > instrument.price_precision:
        raise DataError(
            f"{instrument.id}: the new prices have {needed} decimals, but it was fixed at "
            f"{instrument.price_precision} at its first ingest. Ingest into a new catalog, or give "
            f"--price-precision {instrument.price_precision} to round them"
        )


def _require_positive_when_rounded(bars: Bars, price_precision: int, path: Path) -> None:
    if float(np.round(bars.low.min(), price_precision)) <= 0:
        raise DataError(f"{path}: prices down to {bars.low.min():g} vanish at {price_precision} decimals")


def _report_stem(instrument_id: str, size: BarSize, files: list[Path]) -> str:
    # By their whole paths: files of the same name in two directories have two reports.
    key = hashlib.sha256("\n".join(str(path.resolve()) for path in files).encode()).hexdigest()[:8]
    return f"{instrument_id}-{size}-{files[0].name.partition('.')[0]}-{key}"


def _write_rejected(catalog: Path, stem: str, rejected: pd.DataFrame) -> tuple[Path, Path | None]:
    directory = catalog / REPORTS_DIR
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{stem}.rejected.csv"
    if rejected.empty:
        path.unlink(missing_ok=True)
        return directory / f"{stem}.json", None
    _write_text(path, rejected.to_csv(index=False))
    return directory / f"{stem}.json", path


def _write_json(path: Path, document: dict[str, object]) -> None:
    _write_text(path, json.dumps(document, indent=2) + "\n")


def _write_text(path: Path, text: str) -> None:
    """Replace a file at once, and only where it says something else."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8", newline="")
    os.replace(temporary, path)


def _tells(path: Path, facts: dict[str, object]) -> bool:
    """Whether a report says all this already."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return all(report.get(name) == fact for name, fact in facts.items())


def _file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
