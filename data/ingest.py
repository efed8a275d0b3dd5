"""From foreign files to a catalog: find, read, check, report, write."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from data import quality
from data.bars import Bars, BarSize
from data.catalog import BarCatalog, Outcome, describe_interval
from data.errors import DataError
from data.instruments import Kind, Precision, guess_kind, infer_precision, make_instrument, parse_instrument_id
from data.quality import QualityReport
from data.sources import RawBars, ReadOptions, read_source

BAR_FILE_SUFFIXES = (".feather", ".csv", ".csv.gz", ".txt", ".tsv", ".zip", ".parquet")
REPORTS_DIR = "ingest-reports"

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and of how much."""


@dataclass(frozen=True)
class IngestRequest:
    """What to ingest, as what, and where to."""

    sources: Sequence[Path]
    catalog: Path
    instrument: str
    bar: str | None = None
    read: ReadOptions = field(default_factory=ReadOptions)
    kind: Kind | None = None
    price_precision: int | None = None
    size_precision: int | None = None
    strict: bool = False


@dataclass(frozen=True)
class IngestResult:
    """What an ingest did. ``report_path`` and ``rejected_path`` are where the details lie."""

    instrument: str
    bar: str
    layouts: dict[str, str]
    outcome: Outcome
    bars_written: int
    bars_before: int
    interval: str
    price_precision: int
    size_precision: int
    quality: QualityReport
    report_path: Path
    rejected_path: Path | None

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "instrument": self.instrument,
            "bar": self.bar,
            "layouts": self.layouts,
            "outcome": str(self.outcome),
            "rows_written": self.bars_written,
            "rows_before": self.bars_before,
            "interval": self.interval,
            "price_precision": self.price_precision,
            "size_precision": self.size_precision,
            "report": str(self.report_path),
            "rejected_file": str(self.rejected_path) if self.rejected_path else None,
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
    files = find_files(request.sources)
    raws: list[RawBars] = []
    for done, path in enumerate(files):
        tell("reading", done, len(files))
        raws.append(read_source(path, request.read))
    tell("reading", len(files), len(files))
    size = quality.infer_bar_size(raws, given_size)
    tell("checking", 0, 1)
    bars, report, rejected = quality.check(raws, size)
    tell("checking", 1, 1)
    report.notes.extend(dict.fromkeys(note for raw in raws for note in raw.notes))
    if len(bars) == 0:
        why = ", ".join(f"{count} {reason}" for reason, count in report.rejected.items())
        raise DataError(f"{files[0]}: no bars, all {report.rows_read} rows are rejected: {why}")

    catalog = BarCatalog(request.catalog, create=True)
    instrument = catalog.instrument(request.instrument)
    kind = request.kind or guess_kind(instrument_id)
    inferred, precision_notes = infer_precision(bars, kind)
    report.notes.extend(precision_notes)
    if instrument is None:
        wanted = Precision(
            inferred.price if request.price_precision is None else request.price_precision,
            inferred.size if request.size_precision is None else request.size_precision,
        )
        instrument = make_instrument(instrument_id, kind, wanted)
        _require_positive_when_rounded(bars, wanted.price, files[0])
    else:
        _require_fixed_precision(request, instrument.price_precision, inferred.price)
        if instrument.size_precision < inferred.size:
            report.notes.append(f"volume rounded to the instrument's {instrument.size_precision} decimals")

    stem = _report_stem(request, size, files)
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
    result = IngestResult(
        instrument=request.instrument,
        bar=str(size),
        layouts={str(raw.path): raw.layout for raw in raws},
        outcome=written.outcome,
        bars_written=0 if written.outcome is Outcome.UNCHANGED else len(bars),
        bars_before=written.bars_before,
        interval=describe_interval(bars),
        price_precision=instrument.price_precision,
        size_precision=instrument.size_precision,
        quality=report,
        report_path=report_path,
        rejected_path=rejected_path,
    )
    provenance = {"sources": {str(path): _file_sha256(path) for path in files}, "bars_sha256": bars.sha256()}
    _write_json(report_path, result.as_dict() | provenance)
    return result


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
            inside = sorted(path for path in source.iterdir() if path.name.lower().endswith(BAR_FILE_SUFFIXES))
            if not inside:
                raise DataError(f"{source}: a directory without bar files ({', '.join(BAR_FILE_SUFFIXES)})")
            found.extend(inside)
        else:
            found.append(source)
    twice = {str(path) for path in found if found.count(path) > 1}
    if twice:
        raise DataError(f"{', '.join(sorted(twice))}: named more than once")
    return found


def _tell_nobody(what: str, done: int, total: int) -> None:  # noqa: ARG001
    """Progress that nobody asked for."""


def _require_fixed_precision(request: IngestRequest, fixed: int, needed: int) -> None:
    asked = request.price_precision
    if asked is not None and asked != fixed:
        raise DataError(f"{request.instrument} is fixed at {fixed} price decimals in this catalog, not {asked}")
    if asked is None and needed > fixed:
        raise DataError(
            f"{request.instrument}: the new prices have {needed} decimals, but it was fixed at {fixed} at its first "
            f"ingest. Ingest into a new catalog, or give --price-precision {fixed} to round them"
        )


def _require_positive_when_rounded(bars: Bars, price_precision: int, path: Path) -> None:
    if float(bars.low.min()) < 0.5 * 10.0**-price_precision:
        raise DataError(f"{path}: prices down to {bars.low.min():g} vanish at {price_precision} decimals")


def _report_stem(request: IngestRequest, size: BarSize, files: list[Path]) -> str:
    key = hashlib.sha256("\n".join(path.name for path in files).encode()).hexdigest()[:8]
    return f"{request.instrument}-{size}-{files[0].name.partition('.')[0]}-{key}"


def _write_rejected(catalog: Path, stem: str, rejected: pd.DataFrame) -> tuple[Path, Path | None]:
    directory = catalog / REPORTS_DIR
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{stem}.rejected.csv"
    if rejected.empty:
        path.unlink(missing_ok=True)
        return directory / f"{stem}.json", None
    temporary = path.with_name(f".{path.name}.tmp")
    rejected.to_csv(temporary, index=False)
    os.replace(temporary, path)
    return directory / f"{stem}.json", path


def _write_json(path: Path, document: dict[str, object]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(document, indent=2) + "\n")
    os.replace(temporary, path)


def _file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
