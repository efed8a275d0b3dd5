"""What lies in a forecast store, and what may go.

Only files that a store itself names are ever touched, so a wrong directory loses nothing.
"""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from regime.errors import StoreError
from regime.files import TEMPORARY_PREFIX
from regime.serving.merging import merge, small_parts
from regime.serving.parts import (
    DAMAGED,
    KEY_FILE,
    PART_PREFIX,
    USED_FILE,
    DamagedPart,
    PartFile,
    StoreKey,
    count_rows,
    locked,
    part_files,
)

_DAY_S = 86_400.0
_DAMAGED_NAME = re.compile(rf"({PART_PREFIX}.+|{re.escape(KEY_FILE)}){re.escape(DAMAGED)}(-\d+)?")

OnProgress = Callable[[str, int, int], None]

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class KeySummary:
    """One key's directory. Times are seconds since the epoch, None where nothing was written.

    ``forecasts`` counts rows: a window that two processes wrote counts twice until a prune. ``key`` is None where
    the key file is missing or damaged. ``damaged`` names files set aside, and parts whose footer cannot be read.
    """

    digest: str
    key: StoreKey | None
    parts: int
    forecasts: int
    size_bytes: int
    oldest_write_s: float | None
    newest_write_s: float | None
    last_use_s: float
    damaged: tuple[str, ...]


@dataclass
class PruneReport:
    """What a prune did, or with ``dry_run`` would do.

    ``removed_keys`` are the digests of directories that are gone, ``damaged`` the damaged files removed, with path;
    ``set_aside`` says what merging found damaged, for the next prune to remove. ``merged_parts`` became
    ``merged_into``; ``unmerged`` says where there was no room to merge. In a dry run ``bytes_after`` knows nothing of
    what merging saves.
    """

    root: Path
    dry_run: bool
    bytes_before: int = 0
    bytes_after: int = 0
    removed_keys: list[str] = field(default_factory=list)
    removed_parts: int = 0
    removed_temporary: int = 0
    damaged: list[str] = field(default_factory=list)
    set_aside: list[str] = field(default_factory=list)
    merged_parts: int = 0
    merged_into: int = 0
    unmerged: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Survey:
    """The files of one key's directory that are the store's own; ``bare`` if there are no others."""

    directory: Path
    parts: list[PartFile]
    damaged: list[Path]
    temporary: list[Path]
    kept_bytes: int
    last_use_s: float
    bare: bool

    @property
    def size_bytes(self) -> int:
        waste = sum(_state(path).size_bytes for path in self.damaged + self.temporary)
        return self.kept_bytes + sum(part.size_bytes for part in self.parts) + waste


def store_info(root: Path) -> list[KeySummary]:
    """What a store holds, the last used key first. A missing store holds nothing; nothing is changed.

    Raises
    ------
    StoreError
        If the directory cannot be read.
    """
    try:
        surveys = _surveys(root)
        return [_summary(survey) for survey in reversed(surveys)]
    except OSError as error:
        raise _unusable(root, error) from error


def prune(
    root: Path,
    *,
    max_bytes: int | None = None,
    unused_days: float | None = None,
    everything: bool = False,
    dry_run: bool = False,
    on_progress: OnProgress | None = None,
) -> PruneReport:
    """Remove what is damaged, left over or no longer wanted, and merge small parts of what remains.

    Safe at any time: processes that read meanwhile find the merged parts or compute again, and one that is cut off
    leaves at most forecasts that are there twice. No answer changes.

    Parameters
    ----------
    max_bytes
        Keep at most this much: the least recently used keys go first, and of a key its oldest parts.
    unused_days
        Remove keys that nobody opened or wrote for so many days.
    everything
        Remove all forecasts.
    dry_run
        Change nothing; only report. Temporary files then include those being written at this moment.
    on_progress
        Called with a stage's name, the parts done and the parts in all.

    Raises
    ------
    StoreError
        If the directory cannot be read or written. What was done until then stays done.
    """
    report = PruneReport(root, dry_run)
    try:
        surveys = _surveys(root)
        report.bytes_before = sum(survey.size_bytes for survey in surveys)
        doomed = _doomed(surveys, max_bytes, unused_days, everything)
        total, done = sum(len(survey.parts) for survey in surveys), 0
        for survey in surveys:
            if on_progress is not None:
                on_progress("pruning", done, total)
            if dry_run:
                _foresee(survey, doomed[survey.directory], report)
            else:
                # One directory at a time: whoever wants to write waits no longer than for this one.
                with locked(root, exclusive=True):
                    _clear(survey.directory, doomed[survey.directory], report)
                    report.bytes_after += _survey(survey.directory).size_bytes
            done += len(survey.parts)
    except OSError as error:
        raise _unusable(root, error) from error
    return report


def _unusable(root: Path, error: OSError) -> StoreError:
    where = f" at {error.filename}" if error.filename and str(error.filename) != str(root) else ""
    return StoreError(
        f"{root}: cannot be used as a forecast store ({error.strerror or error}{where}); check the path and its rights"
    )


def _surveys(root: Path) -> list[_Survey]:
    """The keys' directories, the least recently used first."""
    try:
        directories = [path for path in root.iterdir() if re.fullmatch("[0-9a-f]{32}", path.name) and path.is_dir()]
    except FileNotFoundError:
        return []
    return sorted(map(_survey, directories), key=lambda survey: (survey.last_use_s, survey.directory))


def _survey(directory: Path) -> _Survey:
    parts = part_files(directory)
    names = _names(directory)
    damaged = [name for name in names if _DAMAGED_NAME.fullmatch(name)]
    temporary = [name for name in names if name.startswith(TEMPORARY_PREFIX)]
    own = {KEY_FILE, USED_FILE} & names
    return _Survey(
        directory,
        parts,
        [directory / name for name in sorted(damaged)],
        [directory / name for name in sorted(temporary)],
        kept_bytes=sum(_state(directory / name).size_bytes for name in own),
        last_use_s=max(file.written_ns for file in [*parts, _state(directory / USED_FILE)]) / 1e9,
        bare=names == own.union(damaged, temporary, (part.path.name for part in parts)),
    )


def _names(directory: Path) -> set[str]:
    try:
        return {path.name for path in directory.iterdir()}
    except FileNotFoundError:
        return set()  # pruned by another process


def _state(path: Path) -> PartFile:
    try:
        state = path.stat()
    except FileNotFoundError:
        return PartFile(path, 0, 0)
    return PartFile(path, state.st_size, state.st_mtime_ns)


def _read_key(directory: Path) -> StoreKey | None:
    try:
        key = StoreKey.from_json((directory / KEY_FILE).read_text())
    except (OSError, ValueError):
        return None
    return key if key.digest == directory.name else None


def _summary(survey: _Survey) -> KeySummary:
    rows, unreadable = 0, []
    for part in survey.parts:
        try:
            rows += count_rows(part.path)
        except FileNotFoundError:
            continue
        except (DamagedPart, OSError):
            unreadable.append(part.path.name)
    written = [part.written_ns / 1e9 for part in survey.parts]
    return KeySummary(
        digest=survey.directory.name,
        key=_read_key(survey.directory),
        parts=len(survey.parts),
        forecasts=rows,
        size_bytes=survey.size_bytes,
        oldest_write_s=min(written, default=None),
        newest_write_s=max(written, default=None),
        last_use_s=survey.last_use_s,
        damaged=(*(path.name for path in survey.damaged), *unreadable),
    )


def _doomed(
    surveys: list[_Survey], max_bytes: int | None, unused_days: float | None, everything: bool
) -> dict[Path, list[PartFile]]:
    """The parts to remove, by directory."""
    limit_s = None if unused_days is None else time.time() - unused_days * _DAY_S
    doomed: dict[Path, list[PartFile]] = {}
    for survey in surveys:
        unused = limit_s is not None and survey.last_use_s < limit_s
        doomed[survey.directory] = list(survey.parts) if everything or unused else []
    if max_bytes is None:
        return doomed
    remaining = [survey for survey in surveys if survey.parts and not doomed[survey.directory]]
    size = sum(survey.kept_bytes + sum(part.size_bytes for part in survey.parts) for survey in remaining)
    for survey in remaining:
        for part in survey.parts:
            if size <= max_bytes:
                return doomed
            doomed[survey.directory].append(part)
            size -= part.size_bytes
        size -= survey.kept_bytes
    return doomed


def _foresee(survey: _Survey, doomed: list[PartFile], report: PruneReport) -> None:
    report.removed_parts += len(doomed)
    report.removed_temporary += len(survey.temporary)
    report.damaged += map(str, survey.damaged)
    kept = [part for part in survey.parts if part not in doomed]
    if not kept:
        if survey.bare:
            report.removed_keys.append(survey.directory.name)
        return
    groups, damaged = small_parts(kept)
    report.set_aside += (f"{path}: damaged ({reason})" for path, reason in damaged)
    report.merged_parts += sum(map(len, groups))
    report.merged_into += len(groups)
    report.bytes_after += survey.kept_bytes + sum(part.size_bytes for part in kept)


def _clear(directory: Path, doomed: list[PartFile], report: PruneReport) -> None:
    """Remove and merge, under the lock: what is temporary now has no living owner."""
    now = _survey(directory)
    for path in now.temporary:
        path.unlink(missing_ok=True)
        report.removed_temporary += 1
    for path in now.damaged:
        path.unlink(missing_ok=True)
        report.damaged.append(str(path))
    for part in doomed:
        part.path.unlink(missing_ok=True)
        report.removed_parts += 1
    key = _read_key(directory)
    # Without its key a part cannot be verified, so it is not merged; opening the store writes the key anew.
    if key is not None:
        try:
            merged = merge(directory, key)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            # A prune is what a full disk calls for: it must not fail for want of room itself.
            report.unmerged.append(f"{directory}: not merged ({error.strerror}); --max-size or --all make room")
        else:
            report.merged_parts += merged.parts
            report.merged_into += merged.into
            report.set_aside += merged.set_aside
    if directory.is_dir() and (left := _names(directory)) <= {KEY_FILE, USED_FILE}:
        for name in left:
            (directory / name).unlink(missing_ok=True)
        directory.rmdir()
        report.removed_keys.append(directory.name)
