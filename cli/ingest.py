"""``sage ingest``: bars from files into a catalog."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.exits import errors_as_exit_codes
from cli.options import choice

if TYPE_CHECKING:
    from data.archive.names import ArchiveRequest
    from data.ingest import IngestRequest


def ingest(
    catalog: Annotated[Path, typer.Option(readable=False, help="Catalog directory; made if it is not there.")],
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE...", help="Files, directories of them, or binance:SYMBOL of the public archive."
        ),
    ] = None,
    instrument: Annotated[
        str | None, typer.Option(help="SYMBOL.VENUE, such as BTCUSDT.BINANCE; an archive's is known.")
    ] = None,
    bid: Annotated[
        list[Path] | None,
        typer.Option(help="The bid side's file, in the place of SOURCE; goes with --ask. Again for more."),
    ] = None,
    ask: Annotated[
        list[Path] | None, typer.Option(help="The ask side's file; SOURCE is then the bid's. Again for more.")
    ] = None,
    bar: Annotated[str | None, typer.Option(help="Bar size, such as 30m; told from the data by default.")] = None,
    layout: Annotated[
        str | None,
        typer.Option(help="binance-kline, freqtrade-feather, lean-equity, broker-fx, nautilus or ohlcv; else told."),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(help="FIELD=COLUMN[,...] for time, date, open, high, low, close, volume; positions from 0."),
    ] = None,
    stamp: Annotated[str | None, typer.Option(help="Rows are stamped at the bar's open or close.")] = None,
    tz: Annotated[str | None, typer.Option(help="Time zone of stamps without one. Default UTC.")] = None,
    time_format: Annotated[str | None, typer.Option(help="strptime format of the stamps.")] = None,
    price_scale: Annotated[float, typer.Option(help="Multiply prices by this, such as 1e-4.")] = 1.0,
    kind: Annotated[str | None, typer.Option(help="crypto, perpetual, fx or equity; else told by symbol.")] = None,
    price_precision: Annotated[int | None, typer.Option(min=0, max=16, help="Decimals of prices.")] = None,
    size_precision: Annotated[int | None, typer.Option(min=0, max=16, help="Decimals of sizes.")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail if any row is rejected, or a file is missing in the archive.")
    ] = False,
    calendar: Annotated[
        str | None, typer.Option(help="24/7, fx, weekdays, or an exchange such as XNYS; else told by kind and venue.")
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="Archive: first month or day, 2024-01 or 2024-01-15.")
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", help="Archive: last month or day, included. Default: yesterday.")
    ] = None,
    market: Annotated[str | None, typer.Option(help="Archive: spot (default), um or cm futures.")] = None,
    archive: Annotated[
        str | None, typer.Option(help="Archive: its address. Default https://data.binance.vision.")
    ] = None,
    downloads: Annotated[
        Path | None, typer.Option(help="Archive: where its files are kept. Default: $SAGE_DOWNLOADS.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Bring bars from files, or from an exchange's archive, into a NautilusTrader Parquet catalog.

    Every row is checked; rejected ones are written to a file, never dropped in silence.
    """
    with errors_as_exit_codes():
        from cli import render
        from data.errors import OptionError
        from data.ingest import IngestRequest, require_possible
        from data.ingest import ingest as run_ingest
        from data.instruments import Kind
        from data.reading import ReadOptions

        named_sources = _sources(sources or [], bid or [], ask or [])
        asked = _archive_request(
            named_sources, bar, {"--from": start, "--to": end, "--market": market, "--archive": archive,
                           "--downloads": downloads},
        )  # fmt: skip
        named = instrument or (None if asked is None else asked.instrument)
        if named is None:
            raise OptionError("say what the files hold with --instrument, such as BTCUSDT.BINANCE")
        request = IngestRequest(
            sources=[Path(source) for source in named_sources],
            catalog=catalog,
            instrument=named,
            ask=ask or (),
            bar=bar,
            read=ReadOptions(
                layout=layout,
                columns=_columns(columns or []),
                stamp=choice("--stamp", stamp, ["open", "close"]),
                tz=tz,
                time_format=time_format,
                price_scale=price_scale,
            ),
            kind=None if kind is None else Kind(choice("--kind", kind, [str(item) for item in Kind])),
            price_precision=price_precision,
            size_precision=size_precision,
            strict=strict,
            calendar=calendar,
        )
        with render.LiveProgress() as progress:
            if asked is not None:
                # Nobody waits for an archive to hear of an option.
                require_possible(request)
                request = _brought(request, asked, archive, downloads, progress.reach)
            try:
                result = run_ingest(request, progress.reach)
            except KeyboardInterrupt:
                left = f"{catalog} holds all of the bars, or what it held before; the same again finishes the work"
                raise KeyboardInterrupt(left) from None
            if asked is not None:
                from data.archive.download import told_of

                told_of(request.sources)
        if as_json:
            typer.echo(json.dumps(result.as_dict(), indent=2))
        else:
            render.ingest_summary(result)


def _sources(sources: list[str], bid: list[Path], ask: list[Path]) -> list[str]:
    """What is to be read, of which the bid side may be named by an option. Raises OptionError."""
    from data.errors import OptionError

    if bid and (sources or not ask):
        raise OptionError("--bid is the one side of a market, in the place of SOURCE: name the other one with --ask")
    if not (sources or bid):
        raise OptionError("name a SOURCE: a file, a directory of files, or binance:SYMBOL")
    return sources or [str(path) for path in bid]


def _archive_request(sources: list[str], bar: str | None, options: dict[str, Any]) -> ArchiveRequest | None:
    """What is asked of an archive; None where files are named. Raises OptionError for what does not go together."""
    from datetime import UTC, datetime

    from data.archive.names import PREFIX, archive_request
    from data.errors import OptionError

    of_archive = [source for source in sources if source.startswith(PREFIX)]
    if not of_archive:
        given = next((name for name, value in options.items() if value is not None), None)
        if given is not None:
            raise OptionError(f"{given} is for bars of an archive, such as binance:BTCUSDT")
        return None
    if len(sources) > 1:
        raise OptionError(f"{of_archive[0]}: name no other source beside it; each symbol is an ingest of its own")
    market = choice("--market", options["--market"] or "spot", ["spot", "um", "cm"])
    return archive_request(of_archive[0], bar, options["--from"], options["--to"], market, datetime.now(UTC).date())


def _brought(
    request: IngestRequest, asked: ArchiveRequest, address: str | None, downloads: Path | None,
    tell: Callable[[str, int, int], None],
) -> IngestRequest:  # fmt: skip
    """The request with the archive's files in place of its name."""
    from datetime import UTC, datetime

    from data.archive.collect import collect
    from data.archive.download import ADDRESS, Archive, default_downloads
    from data.errors import DataError

    place = Archive(address or ADDRESS, downloads or default_downloads())
    found = collect(asked, place, datetime.now(UTC).date(), tell)
    if request.strict and found.missing:
        raise DataError(
            f"{place.address}: {len(found.missing):,} files are missing ({found.missing[0]}), under --strict"
        )
    paths = [one.path for one in found.files]
    return dataclasses.replace(
        request, sources=paths, kind=request.kind or asked.kind, notes=[*found.notes, *asked.notes],
        archive=f"{asked.symbol} {asked.size} {asked.market} {asked.first}..{asked.last} of {place.address}",
    )  # fmt: skip


def _columns(given: list[str]) -> dict[str, str]:
    from data.errors import OptionError

    chosen: dict[str, str] = {}
    for pair in (pair for text in given for pair in text.split(",")):
        field, separator, column = pair.partition("=")
        if not separator or not field.strip() or not column.strip():
            raise OptionError(f"--columns {pair!r}: write FIELD=COLUMN, for example time=Date")
        chosen[field.strip().lower()] = column.strip()
    return chosen
