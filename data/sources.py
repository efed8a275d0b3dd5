"""Files of foreign layouts: each layout recognises its own, and a file that several claim is an error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from data.errors import AmbiguousSource, OptionError
from data.layouts import binance, broker, freqtrade, lean, nautilus, plain
from data.reading import RawBars, Reading, ReadOptions, read
from data.tables import SourceTable, open_tables


class Layout(Protocol):
    """A layout: a module of ``data.layouts``."""

    NAME: str
    DESCRIPTION: str

    def recognises(self, table: SourceTable) -> bool:
        """Whether a table is surely of this layout. May raise AmbiguousSource where that decides all of its prices."""

    def reading(self, table: SourceTable, options: ReadOptions) -> Reading:
        """How a table of this layout is to be read. Raises DataError or OptionError where it cannot be."""


_ALL: tuple[Layout, ...] = (binance, freqtrade, lean, broker, nautilus, plain)
LAYOUTS = {layout.NAME: layout for layout in _ALL}


def read_source(path: Path, options: ReadOptions) -> Iterator[RawBars]:
    """Open, recognise and read one file, a part at a time: its beginning tells how all of it is written.

    Raises
    ------
    DataError
        If the file cannot be read or has not the columns of bars.
    AmbiguousSource
        If it fits several layouts, or several columns fit one field.
    OptionError
        If there is no such layout, or options do not fit it.
    """
    require_layout(options.layout)
    reading: Reading | None = None
    before: RawBars | None = None
    for table in open_tables(path):
        if reading is None:
            reading = _reading(table, options)
            before = read(table, reading)
            _require_heard(options, before)
        else:
            before = read(table, reading, before)
        yield before


def require_layout(name: str | None) -> None:
    """Raise OptionError for a layout that does not exist."""
    if name is not None and name not in LAYOUTS:
        raise OptionError(f"--layout {name}: unknown; the layouts are {', '.join(LAYOUTS)}")


def _reading(table: SourceTable, options: ReadOptions) -> Reading:
    name = options.layout or _recognise(table)
    if options.columns and name != plain.NAME:
        raise OptionError(
            f"--columns: {table.path} is read as {name}, whose columns are known; --layout {plain.NAME} reads it as a "
            "plain table"
        )
    return LAYOUTS[name].reading(table, options)


def _require_heard(options: ReadOptions, found: RawBars) -> None:
    """Refuse options on times that had no say in how they were read: whoever gave them believes otherwise."""
    form = found.time_form
    if options.time_format is not None and not form.startswith(f"format {options.time_format}"):
        raise OptionError(f"--time-format: {found.path} has {form}, which are in no format of text")
    zone = options.tz
    if zone is not None and zone.upper() != "UTC" and not form.endswith(f"wall clock of {zone}"):
        raise OptionError(f"--tz {zone}: {found.path} has {form}, which say themselves when they are")


def _recognise(table: SourceTable) -> str:
    candidates = [name for name, layout in LAYOUTS.items() if layout.recognises(table)]
    if len(candidates) > 1:
        raise AmbiguousSource(
            f"{table.path}: fits the layouts {' and '.join(candidates)}; say which with --layout {candidates[0]}"
        )
    # Every table that no particular layout claims is read as a plain one, or refused there with the reason.
    return candidates[0] if candidates else plain.NAME
