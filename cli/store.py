"""``sage store``: the forecasts kept on disk, what they are and which may go."""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.exits import errors_as_exit_codes
from cli.options import AsJson

if TYPE_CHECKING:
    from regime.serving.storekeeping import KeySummary, PruneReport

store = typer.Typer(name="store", help="The forecasts kept on disk.", no_args_is_help=True, rich_markup_mode=None)

Directory = Annotated[
    Path | None,
    typer.Option(
        "--dir",
        "--store-dir",
        help="The store. Default $SAGE_STORE, else sage/forecasts in $XDG_CACHE_HOME or ~/.cache.",
    ),
]

_UNITS = {"": 1, "B": 1}
_UNITS |= {f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", start=1)}
_UNITS |= {f"{prefix}IB": 1024**power for power, prefix in enumerate("KMGT", start=1)}


@store.command()
def info(directory: Directory = None, as_json: AsJson = False) -> None:
    """Say where the store lies and what it holds."""
    with errors_as_exit_codes():
        from regime.serving.store import default_root
        from regime.serving.storekeeping import store_info

        root = directory or default_root()
        summaries = store_info(root)
        if as_json:
            typer.echo(json.dumps({"directory": str(root), "keys": [_as_dict(each) for each in summaries]}, indent=2))
        elif summaries:
            _show_info(root, summaries)
        else:
            typer.echo(f"{root}: no forecasts are kept here yet")


@store.command()
def prune(
    directory: Directory = None,
    max_size: Annotated[
        str | None, typer.Option(help="Keep at most this much, such as 500MB or 2GiB; the last used stays longest.")
    ] = None,
    unused_days: Annotated[float | None, typer.Option(min=0, help="Remove what nobody used for so many days.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove all forecasts.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove damaged and leftover files, merge small ones, and remove forecasts as asked.

    Forecasts that are gone are made again when a backtest needs them.
    """
    with errors_as_exit_codes():
        from cli import render
        from data.errors import OptionError
        from regime.serving.store import default_root
        from regime.serving.storekeeping import prune as run_prune

        if everything and not (max_size is None and unused_days is None):
            raise OptionError("--all leaves nothing to choose: leave out --max-size and --unused-days")
        root = directory or default_root()
        max_bytes = None if max_size is None else parse_size(max_size)
        with render.LiveProgress() as progress:
            report = run_prune(
                root,
                max_bytes=max_bytes,
                unused_days=unused_days,
                everything=everything,
                dry_run=dry_run,
                on_progress=progress.reach,
            )
        if as_json:
            fields = dataclasses.asdict(report)
            del fields["root"]
            typer.echo(json.dumps({"directory": str(root), **fields}, indent=2))
        elif report.bytes_before or report.removed_temporary or report.removed_keys:
            _show_pruned(report)
        else:
            typer.echo(f"{root}: no forecasts are kept here, nothing to prune")


def parse_size(text: str) -> int:
    """Bytes from a number and a unit: B, kB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (of 1024).

    Raises
    ------
    OptionError
        If the text is anything else.
    """
    from data.errors import OptionError

    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text, flags=re.ASCII)
    unit = _UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None:
        raise OptionError(f"--max-size {text!r}: write a number and a unit, for example 500MB or 2GiB")
    return int(float(found[1]) * unit)


def _show_info(root: Path, summaries: list[KeySummary]) -> None:
    from rich.table import Table

    from cli import render

    table = Table(title="[bold]forecast store[/bold]", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("checkpoint", "engine", "type", "context", "horizon", "forecasts", "parts", "size", "written", "used"):
        table.add_column(name, justify="right" if name in {"forecasts", "parts", "size"} else "left", overflow="fold")
    for each in summaries:
        key = each.key
        table.add_row(
            key.checkpoint_sha256[:16] if key else f"? (no key in {each.digest})",
            key.engine if key else "?",
            f"{key.dtype} {key.device}" if key else "?",
            str(key.context_bars) if key else "?",
            str(key.horizon_bars) if key else "?",
            f"{each.forecasts:,}",
            f"{each.parts:,}",
            _size(each.size_bytes),
            _span(each.oldest_write_s, each.newest_write_s),
            _time(each.last_use_s)[:10],
        )
    console = render.result_console()
    console.print(table, highlight=False)
    rows = [("in", str(root)), ("size", _size(sum(each.size_bytes for each in summaries)))]
    rows += [("damaged", str(root / each.digest / name)) for each in summaries for name in each.damaged]
    console.print(render.table_of(rows, ""), highlight=False)


def _show_pruned(report: PruneReport) -> None:
    from cli import render

    rows = [
        ("in", str(report.root)),
        ("parts removed", f"{report.removed_parts:,}"),
        ("keys emptied", f"{len(report.removed_keys):,}"),
        ("parts merged", f"{report.merged_parts:,} into {report.merged_into:,}"),
        ("leftovers removed", f"{report.removed_temporary:,} temporary, {len(report.damaged):,} damaged files"),
        ("size", f"{_size(report.bytes_before)}, now {_size(report.bytes_after)}"),
    ]
    if report.dry_run:
        rows[-1] = ("size", f"{_size(report.bytes_before)}, then {_size(report.bytes_after)} or a little less")
    rows += [("was damaged", path) for path in report.damaged]
    rows += [("found damaged", line) for line in report.set_aside]
    rows += [("not merged", line) for line in report.unmerged]
    title = "what a prune would do" if report.dry_run else "pruned"
    render.result_console().print(render.table_of(rows, f"[bold]{title}[/bold]"), highlight=False)


def _as_dict(summary: KeySummary) -> dict[str, Any]:
    """For machines: times as ISO 8601 in UTC."""
    fields = dataclasses.asdict(summary)
    for name in ("oldest_write", "newest_write", "last_use"):
        seconds = fields.pop(f"{name}_s")
        fields[name] = None if seconds is None else _time(seconds)
    return fields | {"checkpoint_id": summary.key.checkpoint_sha256[:16] if summary.key else None}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _span(first_s: float | None, last_s: float | None) -> str:
    if first_s is None or last_s is None:
        return "–"
    first, last = _time(first_s)[:10], _time(last_s)[:10]
    return first if first == last else f"{first} to {last}"


def _size(size_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"
