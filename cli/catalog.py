"""``sage catalog``: what a catalog holds, where it came from, whether it can be read, and what may go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.exits import ExitCode, errors_as_exit_codes
from cli.options import AsJson, confirmed

if TYPE_CHECKING:
    from data.errors import CatalogDamaged
    from data.holdings import Details, Holding, Origin

catalog = typer.Typer(name="catalog", help="The bars in a catalog.", no_args_is_help=True, rich_markup_mode=None)

# Not looked at by Typer, to which missing rights are a wrong option.
Place = Annotated[Path, typer.Argument(metavar="CATALOG", readable=False, help="The catalog's directory.")]
Instrument = Annotated[str, typer.Argument(help="Its identifier, such as BTCUSDT.BINANCE.")]
Bar = Annotated[str | None, typer.Option(help="Bar size, such as 30m; all by default.")]

_GAPS_SHOWN = 10


@catalog.command("ls")
def list_(place: Place, as_json: AsJson = False) -> None:
    """List instruments and their bars: how many, from when to when, and what they take on disk."""
    with errors_as_exit_codes():
        from data.catalog import BarCatalog
        from data.holdings import as_dicts, holdings, others

        opened = BarCatalog(place)
        damage: list[CatalogDamaged] = []
        found, unread = holdings(opened, damage), others(opened)
        if as_json:
            document = {"catalog": str(place), "holdings": list(as_dicts(found)), "others": unread}
            document |= {"damaged": [str(error) for error in damage]} if damage else {}
            typer.echo(json.dumps(document, indent=2))
        elif found:
            _show_list(found)
        else:
            typer.echo(f"{place}: holds no bars" + (" that can be read" if damage else ""))
        for error in damage:
            typer.echo(f"sage: {error}", err=True)
        _tell_of_others(unread)


@catalog.command()
def show(place: Place, instrument: Instrument, bar: Bar = None, as_json: AsJson = False) -> None:
    """Show the bars of an instrument: gaps, and which files they came from."""
    with errors_as_exit_codes():
        from data.bars import BarSize
        from data.catalog import BarCatalog
        from data.holdings import details

        found = details(BarCatalog(place), instrument, None if bar is None else BarSize.parse(bar))
        if as_json:
            typer.echo(json.dumps([_as_dict(one) for one in found], indent=2))
        else:
            for one in found:
                _show_details(one)


@catalog.command()
def check(place: Place, as_json: AsJson = False) -> None:
    """Read everything again, and find damaged and overlapping files. Exit code 1 if there are any."""
    with errors_as_exit_codes():
        from cli.render import LiveProgress
        from data.holdings import check as run_check

        with LiveProgress() as progress:
            found = run_check(place, progress.reach)
        if as_json:
            damage = [{"file": str(one.path), "what": one.told, "mend": one.mend} for one in found.damage]
            document = {"files": found.files, "rows": found.rows, "damage": damage, "others": found.others}
            typer.echo(json.dumps(document, indent=2))
        else:
            for one in found.damage:
                typer.echo(f"{one.path}: {one.told}; {one.mend}")
            told = f"{len(found.damage):,} things are wrong" if found.damage else "all of it is fine"
            typer.echo(f"{place}: {found.files:,} files with {found.rows:,} bars read; {told}")
        _tell_of_others(found.others)
        if found.damage:
            raise typer.Exit(int(ExitCode.CHECK_FAILED))


@catalog.command()
def rm(
    place: Place,
    instrument: Instrument,
    bar: Bar = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove the bars of an instrument, of one size or of all.

    The instrument goes with them, unless the catalog holds something else of it.
    """
    with errors_as_exit_codes():
        from data.bars import BarSize
        from data.catalog import BarCatalog
        from data.holdings import rows_of

        opened = BarCatalog(place)
        found = rows_of(opened, instrument, None if bar is None else BarSize.parse(bar))
        told = ", ".join(f"{'damaged' if rows is None else f'{rows:,}'} bars of {size}" for size, rows in found.items())
        confirmed(f"{told} of {instrument}", yes=yes)
        for size in found:
            opened.remove(instrument, size)
        typer.echo(f"{place}: removed {told} of {instrument}")


def _tell_of_others(unread: list[str]) -> None:
    if unread:
        told = "not looked at, for SAGE reads bars of last prices made outside, of known instruments, alone"
        typer.echo(f"sage: {told}: {', '.join(unread)}", err=True)


def _show_list(found: list[Holding]) -> None:
    from rich.table import Table

    from cli.render import result_console
    from data.bars import iso

    table = Table(box=None)
    for name in ("instrument", "kind", "bar", "bars", "first close", "last close", "files", "size"):
        # Folded where the terminal is narrow: what is cut off cannot be typed again.
        table.add_column(name, justify="right" if name in {"bars", "files", "size"} else "left", overflow="fold")
    for one in found:
        rows = "damaged" if one.rows is None else f"{one.rows:,}"
        table.add_row(one.instrument, str(one.kind), str(one.size), rows, iso(one.first_ns), iso(one.last_ns),
                      f"{one.files:,}", f"{one.bytes / 1e6:,.1f} MB")  # fmt: skip
    result_console().print(table, highlight=False)


def _show_details(found: Details) -> None:
    from cli.render import result_console, table_of
    from data.bars import iso

    held = found.holding
    longest = sorted(found.gaps.told, key=lambda gap: -gap.missing_bars)[:_GAPS_SHOWN]
    rows = [
        ("kind", str(held.kind)),
        ("bars", f"{held.rows or 0:,} in {held.files:,} files, {held.bytes / 1e6:,.1f} MB"),
        ("closes", f"{iso(held.first_ns)} to {iso(held.last_ns)}"),
        (
            "gaps",
            f"{found.gaps.count:,} with {found.gaps.missing_bars:,} bars missing, by the calendar {found.calendar}",
        ),
        *(("", f"{gap.missing_bars:,} bars after {iso(gap.after_ns)}") for gap in longest),
        *(row for origin in found.origins for row in _origin_rows(origin)),
    ]
    result_console().print(table_of(rows, f"[bold]{held.instrument} {held.size}[/bold]"), highlight=False)


def _origin_rows(origin: Origin) -> list[tuple[str, str]]:
    chosen = ", ".join(f"{name} {_in_words(value)}" for name, value in origin.options.items())
    rejected = f", {origin.rows_rejected:,} rows rejected" if origin.rows_rejected else ""
    first = f"{origin.at or 'at an unknown time'}: {origin.interval}{rejected}" + (f" ({chosen})" if chosen else "")
    return [("ingested", first), *(("", f"{path}  sha256 {sha256[:16]}…") for path, sha256 in origin.sources.items())]


def _in_words(value: Any) -> str:
    """An option as it was given: several files or columns one behind the other."""
    if isinstance(value, dict):
        return ",".join(f"{name}={one}" for name, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _as_dict(found: Details) -> dict[str, Any]:
    from data.holdings import as_dicts

    ingests = [
        {"at": one.at or None, "interval": one.interval, "outcome": one.outcome, "rows_rejected": one.rows_rejected,
         "options": one.options, "notes": one.notes, "sources": one.sources, "report": str(one.report)}
        for one in found.origins
    ]  # fmt: skip
    return next(as_dicts([found.holding])) | {
        "calendar": found.calendar, "gap_count": found.gaps.count, "missing_bars": found.gaps.missing_bars,
        "gaps": [gap.as_dict() for gap in found.gaps.told], "ingests": ingests,
    }  # fmt: skip
