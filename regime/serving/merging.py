"""Small parts of a forecast store made into larger ones, while others read.

The merged part is on disk before the first of its sources goes: cut off in between, forecasts are there twice, which
changes nothing. Readers that lose a part under their hands look again and find the merged one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from regime.serving.parts import (
    DamagedPart,
    PartFile,
    Rows,
    StoreKey,
    count_rows,
    part_files,
    read_part,
    set_aside,
    windows_of,
    write_part,
)

MERGED_ROWS = 4096
"""Parts below half of this are merged into parts of at most this: few enough files to open a store at once, small
enough (2.4 MB at a horizon of 16) to read a part whole when its first forecast is asked for."""


@dataclass
class Merged:
    """How many parts became how many; ``set_aside`` says which turned out to be damaged, with path and reason."""

    parts: int = 0
    into: int = 0
    set_aside: list[str] = field(default_factory=list)


def small_parts(parts: list[PartFile]) -> tuple[list[list[PartFile]], list[tuple[Path, str]]]:
    """Groups of small parts that are to become one each, and the parts whose footer is damaged, with the reason.

    Every group but the last comes to at least half of ``MERGED_ROWS``, so merging again finds nothing to do.
    """
    groups: list[list[PartFile]] = [[]]
    damaged: list[tuple[Path, str]] = []
    rows_in_group = 0
    for part in parts:
        try:
            rows = count_rows(part.path)
        except FileNotFoundError:
            continue
        except DamagedPart as error:
            damaged.append((part.path, str(error)))
            continue
        if rows >= MERGED_ROWS // 2:
            continue
        if rows_in_group + rows > MERGED_ROWS:
            groups.append([])
            rows_in_group = 0
        groups[-1].append(part)
        rows_in_group += rows
    return [group for group in groups if len(group) > 1], damaged


def merge(directory: Path, key: StoreKey) -> Merged:
    """Merge the small parts of one key. The caller holds the store's lock; raises OSError.

    Of a window that several parts hold, the row that has answered so far is kept, so no answer changes.
    """
    merged = Merged()
    listed = part_files(directory)
    groups, damaged = small_parts(listed)
    for path, reason in damaged:
        _put_aside(path, reason, merged)
    if not groups:
        return merged
    answering: dict[bytes, Path] = {}
    for part in listed:
        rows = _read(part.path, key, merged, with_quantiles=False)
        for window in rows.windows.tolist() if rows else []:
            answering.setdefault(window, part.path)
    for group in groups:
        _merge_group(directory, key, group, answering, merged)
    return merged


def _merge_group(
    directory: Path, key: StoreKey, group: list[PartFile], answering: dict[bytes, Path], merged: Merged
) -> None:
    sources: list[Path] = []
    windows: list[bytes] = []
    blocks = [np.empty((0, *key.shape), dtype=np.float32)]
    for part in group:
        rows = _read(part.path, key, merged, with_quantiles=True)
        if rows is None or rows.quantiles is None:
            continue
        sources.append(part.path)
        keys = rows.windows.tolist()
        chosen = [row for row, window in enumerate(keys) if answering[window] == part.path]
        windows += (keys[row] for row in chosen)
        blocks.append(rows.quantiles[chosen])
    if windows:
        # Older than its oldest source: these rows have answered so far, and so they do against any other part.
        write_part(directory, key, windows_of(windows), np.concatenate(blocks), group[0].written_ns - 1)
        merged.into += 1
    for path in sources:
        path.unlink(missing_ok=True)
    merged.parts += len(sources)


def _read(path: Path, key: StoreKey, merged: Merged, *, with_quantiles: bool) -> Rows | None:
    try:
        return read_part(path, key, with_quantiles=with_quantiles)
    except FileNotFoundError:
        return None  # set aside
    except DamagedPart as error:
        _put_aside(path, str(error), merged)
        return None


def _put_aside(path: Path, reason: str, merged: Merged) -> None:
    try:
        name = set_aside(path).name
    except FileNotFoundError:
        return  # a reader was quicker, and says so itself
    merged.set_aside.append(f"{path}: damaged ({reason}); set aside as {name}")
