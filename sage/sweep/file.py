"""A sweep as a TOML file."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any

from data.errors import OptionError
from sage.config import BacktestConfig
from sage.sweep.axes import axis_of
from sage.sweep.plan import Period, SweepConfig
from sage.sweep.windows import WindowConfig

_KEYS = {"set", "draws", "draw_seed", "instruments", "periods", "windows"}
_WINDOW_KEYS = {"train_bars": int, "test_bars": int, "rolling": bool, "embargo_bars": int}


def load_sweep(path: Path, base: BacktestConfig) -> SweepConfig:
    """Read a file with ``[set]``, ``draws``, ``draw_seed``, ``instruments``, ``periods`` and ``[windows]``.

    Raises
    ------
    OptionError
        If it is missing, no TOML, or has other keys or values of another kind.
    """
    where = f"--grid {path}"
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise OptionError(f"{where}: {getattr(error, 'strerror', None) or error}") from error
    _require_keys(document, _KEYS, where)
    axes = document.get("set", {})
    if not isinstance(axes, dict):
        raise OptionError(f"{where}: set is a table, [set]")
    return SweepConfig(
        backtest=base,
        axes=tuple(axis_of(key, given) for key, given in _flat(axes).items()),
        draws=_whole(document, "draws", where),
        seed=_whole(document, "draw_seed", where),
        instruments=_texts(document, "instruments", where),
        periods=tuple(map(parse_period, _texts(document, "periods", where))),
        windows=_windows(document["windows"], where) if "windows" in document else None,
    )


def parse_period(text: str) -> Period:
    """Read ``START..END``; one of them may be left out. Raises OptionError."""
    start, dots, end = text.partition("..")
    if not dots or not (start.strip() or end.strip()):
        raise OptionError(f"--period {text}: write START..END, such as 2023-01-01..2023-06-30")
    return Period(start.strip() or None, end.strip() or None)


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Keys with dots; a table with ``from`` and ``to`` is a value."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict) and not {"from", "to"} & value.keys():
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _windows(table: Any, where: str) -> WindowConfig:
    if not isinstance(table, dict):
        raise OptionError(f"{where}: windows is a table, [windows]")
    _require_keys(table, set(_WINDOW_KEYS), f"{where}: [windows]")
    for key, value in table.items():
        if type(value) is not _WINDOW_KEYS[key]:
            raise OptionError(f"{where}: windows.{key} is {value!r}; it must be of type {_WINDOW_KEYS[key].__name__}")
    if not {"train_bars", "test_bars"} <= table.keys():
        raise OptionError(f"{where}: [windows] needs train_bars and test_bars")
    return WindowConfig(**table)


def _require_keys(table: dict[str, Any], known: set[str], where: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=3) or sorted(known)
            raise OptionError(f"{where}: unknown key {key}; near it: {', '.join(near)}")


def _whole(document: dict[str, Any], key: str, where: str) -> int:
    value = document.get(key, 0)
    if type(value) is not int or value < 0:
        raise OptionError(f"{where}: {key} is {value!r}; it must be a whole number")
    return value


def _texts(document: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    value = document.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise OptionError(f"{where}: {key} is a list of texts")
    return tuple(value)
