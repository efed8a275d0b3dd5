"""From foreign files to a catalog: find, read, check, report, write."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.model.instruments import Instrument

from data.bars import BarSize
from data.calendars import calendar_name, require_calendar
from data.catalog import BarCatalog, Outcome, Written, describe_interval
from data.definitions import precision_of_bars
from data.errors import CatalogError, DataError, OptionError
from data.finding import find_files, out_of_catalog
from data.holes import Holes
from data.instruments import (
    Kind,
    Measured,
    Precision,
    guess_kind,
    kind_of,
    make_instrument,
    measure,
    parse_instrument_id,
)
from data.places import nearest, rights_to, sha256_of
from data.quality import QualityReport
from data.reading import ReadOptions
from data.rejects import Rejects
from data.reports import REPORTS_DIR, report_stem, tells, write_report
from data.rereading import EARLIER, Earlier, earlier_readings, left_over
from data.sifting import Progress, Sifted, sift_sides
from data.sources import require_layout
from data.spool import Spool
from data.spreads import HourlySpreads


@dataclass(frozen=True)
class IngestRequest:
    """What to ingest, as what, and where to. Where ``ask`` names files, ``sources`` are the bid side.

    ``notes`` are known of the files before they are read, and go to the report, and so does ``archive``: what was asked
    of which archive, where the files come from one.
    """

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
    calendar: str | None = None
    notes: Sequence[str] = ()
    archive: str | None = None

    @property
    def bar_size(self) -> BarSize | None:
        """The size that was asked for. Raises OptionError for none that there is."""
        return None if self.bar is None else BarSize.parse(self.bar)

    def options(self) -> dict[str, Any]:
        """What was chosen, for the report: all that is not left to be told from the data."""
        left_out = {"sources", "catalog", "instrument", "ask", "notes", "read"}
        given = {
            item.name: value
            for of, without in ((self, left_out), (self.read, set()))
            for item in dataclasses.fields(of)
            if item.name not in without and (value := getattr(of, item.name)) != _default_of(item)
        }
        return given | ({"ask": [str(path) for path in self.ask]} if self.ask else {})


@dataclass(frozen=True)
class IngestResult:
    """What an ingest did. ``report_path`` and ``rejected_path`` are where the details lie.

    ``spreads`` are those of this ingest, where both sides were given; ``damaged_before`` is whether a file of the
    catalog was replaced that could not be read, of which ``bars_before`` counts what could.
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
    damaged_before: bool = False

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
            "damaged_before": self.damaged_before,
            "interval": self.interval,
            "price_precision": self.price_precision,
            "size_precision": self.size_precision,
            "report": str(self.report_path),
            "rejected_file": str(self.rejected_path) if self.rejected_path else None,
            "half_spread_bps_by_hour": _by_hour(self.spreads),
            **self.quality.as_dict(),
        }


def _default_of(item: dataclasses.Field[Any]) -> Any:
    return item.default_factory() if callable(item.default_factory) else item.default


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
    require_possible(request)
    instrument_id = parse_instrument_id(request.instrument)
    with rights_to(request.catalog), ExitStack() as spools:
        request = dataclasses.replace(request, sources=_out_of_catalogs(request))
        sides = find_files(*((request.sources, request.ask) if request.ask else (request.sources,)))
        rejects = spools.enter_context(Rejects(nearest(request.catalog)))

        def spool() -> Spool:
            return spools.enter_context(Spool(request.catalog))

        return _ingested(request, instrument_id, sides, spool, rejects, tell)


def require_possible(request: IngestRequest) -> None:
    """Look at all that can be judged before a file is read, or fetched.

    Raises
    ------
    CatalogError
        If nothing can be written to the catalog.
    OptionError
        If there is no such instrument, calendar, layout or bar size.
    """
    _require_writable(request.catalog)
    parse_instrument_id(request.instrument)
    if request.calendar is not None:
        require_calendar(request.calendar)
    require_layout(request.read.layout)
    _ = request.bar_size


def _require_writable(catalog: Path) -> None:
    place = nearest(catalog)
    if not place.is_dir():
        raise CatalogError(f"{place}: is a file, not a catalog directory")
    if not os.access(place, os.W_OK | os.X_OK):
        raise CatalogError(f"{catalog}: nothing can be written in {place}; check its rights")


def _ingested(
    request: IngestRequest,
    instrument_id: InstrumentId,
    sides: list[list[Path]],
    spools: Callable[[], Spool],
    rejects: Rejects,
    tell: Progress,
) -> IngestResult:
    files = [path for side in sides for path in side]
    calendar = _calendar_name(request, instrument_id)
    found = sift_sides(sides, request.read, request.bar_size, calendar, spools, rejects.append, tell)
    size, bars, spreads, report = found.size, found.bars, found.spreads, found.report
    report.notes.extend(dict.fromkeys([*found.notes, *request.notes]))

    catalog = BarCatalog(request.catalog, create=True)
    measured = measure(bars)
    instrument = _instrument_for(measured, instrument_id, request, catalog, report.notes)
    if float(np.round(measured.lowest, instrument.price_precision)) <= 0:
        raise DataError(
            f"{files[0]}: prices down to {measured.lowest:g} vanish at {instrument.price_precision} decimals"
        )

    stem = report_stem(str(instrument_id), size, files)
    reports = request.catalog / REPORTS_DIR
    reports.mkdir(parents=True, exist_ok=True)
    report_path = reports / f"{stem}.json"
    if request.strict and report.rows_rejected:
        # Beside the report of an earlier ingest, which tells where the bars come from that are there.
        refused = report_path.with_suffix(".refused.json")
        refused_rows = rejects.save(reports / f"{stem}.refused.csv")
        write_report(refused, {"outcome": "rejected (--strict)", **report.as_dict()})
        raise StrictRejection(
            f"{report.rows_rejected} of {report.rows_read} rows rejected under --strict; nothing was written. "
            f"The rows are in {refused_rows}"
        )
    # Before anything is written: whoever takes a source away meanwhile leaves no bars of unknown origin.
    sources = {str(path): sha256_of(path) for path in files}
    earlier = earlier_readings(report_path, sources, request.options())
    bars_done = 0

    def wrote(step: int) -> None:
        nonlocal bars_done
        bars_done += step
        tell("writing", bars_done, len(bars))

    written = catalog.write(bars, instrument, size, wrote, spreads, Holes.of(report.gaps.told))
    left = left_over(catalog, instrument, size, earlier, (bars.first_ns, bars.last_ns), report_path)
    report.notes.extend(told for _, told in left)
    # What tells of earlier bars stays until these are there.
    try:
        readings = [reading for reading, _ in left]
        return _reported(request, instrument, found, written, sources, readings, rejects, report_path)
    except OSError as error:
        raise CatalogError(
            f"{report_path}: the bars are in the catalog, but the report could not be saved that tells where they came "
            f"from ({error.strerror or error}); mend that, and ingest the same again"
        ) from error


def _reported(
    request: IngestRequest,
    instrument: Instrument,
    found: Sifted,
    written: Written,
    sources: dict[str, str],
    earlier: list[Earlier],
    rejects: Rejects,
    report_path: Path,
) -> IngestResult:
    """What came of bars that are written, saved beside them. Raises OSError."""
    bars, report = found.bars, found.report
    rejected_path = rejects.save(report_path.with_suffix(".rejected.csv"))
    if written.hours_dropped:
        report.notes.append(
            f"spreads of {written.hours_dropped:,} hours dropped: they were measured on the bars now replaced"
        )
    if written.bars_kept:
        report.notes.append(
            f"{written.bars_kept:,} bars of before stay where these have none for more than a day, "
            f"{written.kept_between}"
        )
    if written.redefined:
        report.notes.append("the definition of the instrument was missing, and is written again")
    result = IngestResult(
        instrument=str(instrument.id),
        bar=str(found.size),
        layouts=found.layouts,
        outcome=written.outcome,
        bars_written=0 if written.outcome is Outcome.UNCHANGED else len(bars),
        bars_before=written.bars_before,
        interval=describe_interval(bars.first_ns, bars.last_ns),
        price_precision=instrument.price_precision,
        size_precision=instrument.size_precision,
        kind=str(kind_of(instrument)),
        quality=report,
        report_path=report_path,
        rejected_path=rejected_path,
        spreads=found.spreads,
        damaged_before=written.damaged,
    )
    provenance = {"sources": sources, "bars_sha256": bars.sha256()}
    if result.outcome is not Outcome.UNCHANGED or not tells(report_path, report.as_dict() | provenance):
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        told = {"ingested_at": now, "options": request.options(), **provenance}
        before = {EARLIER: [reading.as_dict() for reading in earlier]} if earlier else {}
        write_report(report_path, result.as_dict() | told | before)
    return result


def _calendar_name(request: IngestRequest, instrument_id: InstrumentId) -> str:
    """The calendar that was asked for, or that of the instrument's kind and venue."""
    return request.calendar or calendar_name(instrument_id, request.kind or guess_kind(instrument_id))


def _by_hour(spreads: HourlySpreads | None) -> list[float | None] | None:
    """Mean half-spread of each hour of the day, UTC, for JSON; None where nothing is known."""
    if spreads is None:
        return None
    return [round(float(value), 4) if np.isfinite(value) else None for value in spreads.by_hour_of_day()]


def _instrument_for(
    measured: Measured, instrument_id: InstrumentId, request: IngestRequest, catalog: BarCatalog, notes: list[str]
) -> Instrument:
    """The instrument as its first ingest fixed it, or a new one as precise as its bars; notes what gets rounded."""
    instrument = catalog.instrument(str(instrument_id))
    kind = kind_of(instrument) if instrument is not None else request.kind or guess_kind(instrument_id)
    inferred = measured.precision(kind)
    if measured.noisy:
        notes.append(f"prices carry more digits than a tick has; rounded to {inferred.price} decimals")
    if instrument is None and (held := precision_of_bars(catalog.root, str(instrument_id))):
        instrument = make_instrument(instrument_id, kind, held)
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
    if measured.size_decimals > instrument.size_precision or measured.size_noisy:
        notes.append(f"volume rounded to the instrument's {instrument.size_precision} decimals")
    return instrument


def _out_of_catalogs(request: IngestRequest) -> list[Path]:
    """The sources, with the folder of the bars that are wanted in the place of a whole NautilusTrader catalog."""
    for source in request.sources:
        if (source / "data" / "bar").is_dir() and source.resolve() == request.catalog.resolve():
            raise OptionError(f"{source}: is the catalog that the bars are to go to")
    return [out_of_catalog(source, request.instrument, request.bar_size) for source in request.sources]


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
