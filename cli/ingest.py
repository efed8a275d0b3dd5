"""``sage ingest``: bars from files into a catalog."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cli.exits import errors_as_exit_codes
from cli.options import choice


def ingest(
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE...", help="Files, or directories of them.")],
    catalog: Annotated[Path, typer.Option(help="Catalog directory; made if it is not there.")],
    instrument: Annotated[str, typer.Option(help="SYMBOL.VENUE, such as BTCUSDT.BINANCE.")],
    ask: Annotated[
        list[Path] | None, typer.Option(help="The ask side's file; SOURCE is then the bid's. Again for more.")
    ] = None,
    bar: Annotated[str | None, typer.Option(help="Bar size, such as 30m; told from the data by default.")] = None,
    layout: Annotated[
        str | None, typer.Option(help="binance-kline, freqtrade-feather or ohlcv; else detected.")
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
    strict: Annotated[bool, typer.Option("--strict", help="Fail if any row is rejected.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Bring bars from files into a NautilusTrader Parquet catalog.

    Every row is checked; rejected ones are written to a file, never dropped in silence.
    """
    with errors_as_exit_codes():
        from cli import render
        from data.ingest import IngestRequest
        from data.ingest import ingest as run_ingest
        from data.instruments import Kind
        from data.sources import ReadOptions

        request = IngestRequest(
            sources=sources,
            catalog=catalog,
            instrument=instrument,
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
        )
        with render.LiveProgress() as progress:
            result = run_ingest(request, progress.reach)
        if as_json:
            typer.echo(json.dumps(result.as_dict(), indent=2))
        else:
            render.ingest_summary(result)


def _columns(given: list[str]) -> dict[str, str]:
    from data.errors import OptionError

    chosen: dict[str, str] = {}
    for pair in (pair for text in given for pair in text.split(",")):
        field, separator, column = pair.partition("=")
        if not separator or not field.strip() or not column.strip():
            raise OptionError(f"--columns {pair!r}: write FIELD=COLUMN, for example time=Date")
        chosen[field.strip().lower()] = column.strip()
    return chosen
