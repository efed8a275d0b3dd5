"""How a catalog's directory changes all at once, though a process may be killed between any two steps.

What is new is first written to a staging directory inside the catalog. A journal then names the files to add and to
remove; whoever opens the catalog next finishes what it asks for.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from data.errors import CatalogDamaged, CatalogError
from data.spool import sweep_spools

JOURNAL = "sage-journal.json"
LOCK = ".sage-lock"
STAGING_PREFIX = ".sage-staging-"


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold a catalog against another ingest; the lock goes with the process, however it ends."""
    import fcntl

    with (root / LOCK).open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CatalogError(f"{root}: another ingest is writing to it; try again when it is done") from error
        yield


def new_staging(root: Path) -> Path:
    """A place inside a catalog for what is not part of it yet, or no more."""
    return root / f"{STAGING_PREFIX}{uuid.uuid4().hex}"


def swap(root: Path, staging: Path, added: Iterable[Path], removed: Iterable[Path]) -> None:
    """Move files from a staging directory to their places and remove others, or nothing at all.

    ``added`` and ``removed`` are relative to the catalog.
    """
    add = [str(path) for path in added]
    remove = [str(path) for path in removed]
    journal = {"staging": staging.name, "add": add, "remove": [name for name in remove if name not in add]}
    write_durably(root / JOURNAL, json.dumps(journal))
    finish_journal(root)


def finish_journal(root: Path) -> None:
    """Carry out what a journal asks for. Safe to repeat from any point at which it was cut off.

    Raises
    ------
    CatalogDamaged
        If it is not as it was written.
    """
    journal_path = root / JOURNAL
    if not journal_path.exists():
        return
    staging, added, removed = _read(root, journal_path)
    for name in removed:
        (root / name).unlink(missing_ok=True)
    for name in added:
        if (staging / name).exists():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(staging / name, root / name)
    journal_path.unlink()
    shutil.rmtree(staging, ignore_errors=True)


def _read(root: Path, path: Path) -> tuple[Path, list[str], list[str]]:
    """The staging directory, and the files to add and to remove, none of which may lie outside of the catalog."""
    try:
        journal = json.loads(path.read_text(encoding="utf-8"))
        added, removed, name = list(journal["add"]), list(journal["remove"]), journal["staging"]
        for inside in (*added, *removed, name):
            if Path(inside).is_absolute() or ".." in Path(inside).parts:
                raise ValueError(f"{inside} lies outside")
    except (ValueError, KeyError, TypeError) as error:
        raise CatalogDamaged(
            path, f"the journal of an ingest that was cut off is damaged ({error})",
            "move it elsewhere, see sage catalog check, and ingest again what was ingested last",
        ) from error  # fmt: skip
    return root / name, added, removed


def sweep_staging(root: Path) -> None:
    """Remove what interrupted ingests left; called under the lock, so none of it is in use."""
    if (root / JOURNAL).exists():
        return
    for leftover in root.glob(f"{STAGING_PREFIX}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    sweep_spools(root)


def sync(path: Path) -> None:
    """Have a file on the disk, whatever happens to the machine."""
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def write_durably(path: Path, text: str) -> None:
    """Replace a file at once."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(temporary, path)
