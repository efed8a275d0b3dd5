"""Files of an archive brought here whole: verified, resumed, kept, and several at a time.

Beside every file lies its ``.CHECKSUM``, a line with the file's SHA-256 and its name. It is asked for each time, so
that a file which the archive has replaced is noticed; the file itself comes only if it is not here already. The digest
of the version before lies in ``.replaced`` until people have been told of it, whatever fails meanwhile.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import requests
import urllib3

from data.archive.names import ArchiveFile
from data.errors import DataError, OptionError
from data.places import kept, sha256_of

ADDRESS = "https://data.binance.vision"
AT_ONCE = 4
_CHUNK_BYTES = 1 << 16
_LOOK_S = 0.2
_CHECKSUM_BYTES_MAX = 4096
Answer = TypeVar("Answer")


class Unreachable(OSError):
    """The archive does not answer."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for the archive: seconds to connect and between two pieces, and between attempts.

    The pause doubles from one attempt to the next.
    """

    connect_s: float = 10.0
    read_s: float = 30.0
    attempts: int = 4
    pause_s: float = 1.0


@dataclass(frozen=True)
class Fetched:
    """One file as it lies here.

    ``replaced`` is the digest of the version that the archive had before, if it was kept here, until :func:`told_of`.
    ``was_here`` is true where nothing had to be fetched, ``verified`` false where the archive could not be asked
    whether that is still so. ``gone`` is true where it says that it has no such file any more.
    """

    file: ArchiveFile
    path: Path
    sha256: str
    replaced: str | None = None
    was_here: bool = False
    verified: bool = True
    gone: bool = False


def default_downloads() -> Path:
    """``$SAGE_DOWNLOADS``, else ``sage/downloads`` under ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    return kept("SAGE_DOWNLOADS", "XDG_CACHE_HOME", "downloads")


class Archive:
    """An archive at an address, and the files of it that are kept here.

    Parameters
    ----------
    address
        Where it lies, without the path of a file.
    downloads
        Where files are kept; each archive has a folder of its own there.
    patience
        How long to wait.

    Raises
    ------
    OptionError
        If the address is none.
    """

    def __init__(self, address: str, downloads: Path, patience: Patience | None = None) -> None:
        self.address = address.rstrip("/")
        self.host = _host_of(self.address)
        self._root = downloads / re.sub(r"[^A-Za-z0-9._-]+", "_", self.address.partition("://")[2] or self.address)
        self._silent: Unreachable | None = None
        self._patience = patience or Patience()
        self._over = threading.Event()
        self._own = threading.local()

    def fetch(
        self, files: Sequence[ArchiveFile], on_progress: Callable[[float], None] | None = None
    ) -> tuple[list[Fetched], list[ArchiveFile]]:
        """Bring files here, several at once.

        What interrupts it leaves whole files and parts that the next call goes on with.

        Parameters
        ----------
        files
            Which.
        on_progress
            Hears how many files are done, with the share of those under way.

        Returns
        -------
        The files in the order asked for, and those that the archive does not have.

        Raises
        ------
        Unreachable
            If it does not answer, after several attempts, and not all files are here.
        DataError
            If it answers with what is no such archive, or a file does not match its checksum.
        OSError
            If a file cannot be written here.
        """
        shares = dict.fromkeys(files, 0.0)
        found: dict[ArchiveFile, Fetched | None] = {}

        def reached(file: ArchiveFile, share: float) -> None:
            shares[file] = share
            if on_progress is not None:
                on_progress(sum(shares.values()))

        self._over.clear()
        self._silent = None
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="sage-fetch") as pool:
            under_way = {pool.submit(self._one, file, reached): file for file in files}
            try:
                for future in as_completed(under_way):
                    found[under_way[future]] = future.result()
                    reached(under_way[future], 1.0)
            except BaseException:
                self._over.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        have = [one for file in files if (one := found[file]) is not None]
        return have, [file for file in files if found[file] is None]

    def _one(self, file: ArchiveFile, reached: Callable[[ArchiveFile, float], None]) -> Fetched | None:
        path = self._root / file.path
        known = _recorded(path)
        try:
            expected = self._checksum(file)
        except Unreachable as error:
            # Who does not answer is not asked again for each of the others, which may be here.
            self._silent = error
            if known is not None and sha256_of(path) == known:
                return Fetched(file, path, known, _replaced(path, known), was_here=True, verified=False)
            if _absent(path).exists():
                return None
            raise
        if expected is None:
            if known is not None and sha256_of(path) == known:
                return Fetched(file, path, known, _replaced(path, known), was_here=True, gone=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            _absent(path).touch()
            return None
        _absent(path).unlink(missing_ok=True)
        if known == expected and sha256_of(path) == expected:
            return Fetched(file, path, expected, _replaced(path, expected), was_here=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._alone(path):
            if _recorded(path) != expected or sha256_of(path) != expected:  # another process may have been quicker
                if known not in {None, expected} and not _before(path).exists():
                    _record(_before(path), f"{known}\n")
                self._bring(file, path, expected, reached)
                _record(_beside(path), f"{expected}  {path.name}\n")
        return Fetched(file, path, expected, _replaced(path, expected))

    @contextmanager
    def _alone(self, path: Path) -> Iterator[None]:
        """Wait for other processes that bring the same file."""
        with path.with_name(f".{path.name}.lock").open("a") as handle:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if self._over.wait(_LOOK_S):
                        raise Unreachable("interrupted") from None
            yield

    def _checksum(self, file: ArchiveFile) -> str | None:
        """The digest that a file should have; None where the archive has no such file."""

        if self._silent is not None:
            raise self._silent

        def ask() -> str | None:
            answer = self._get(f"{file.path}.CHECKSUM")
            with answer:
                if answer.status_code == requests.codes.not_found:
                    return None
                self._require_ok(answer)
                told = next(answer.iter_content(_CHECKSUM_BYTES_MAX), b"")
                return bytes(told).decode("utf-8", errors="replace")

        text = self._patiently(ask)
        if text is None:
            return None
        match = re.match(r"\s*([0-9a-fA-F]{64})\s+\*?(\S+)\s*$", text)
        if match is None or match[2] != file.name:
            raise DataError(
                f"{self.address}/{file.path}.CHECKSUM: {text[:60].strip()!r} is no checksum of {file.name}; is this "
                "an archive of Binance's?"
            )
        return match[1].lower()

    def _bring(
        self, file: ArchiveFile, path: Path, expected: str, reached: Callable[[ArchiveFile, float], None]
    ) -> None:
        # By its digest: what is left of another version is none of this one's.
        partial = path.with_name(f"{path.name}.{expected[:12]}.part")
        for _ in range(2):
            self._patiently(lambda: self._download(file, partial, reached))
            digest = sha256_of(partial)
            if digest == expected:
                os.replace(partial, path)
                return
            # The second time from its beginning: the part that was here may have been the bad one.
            partial.unlink()
        raise DataError(
            f"{self.address}/{file.path}: does not match its CHECKSUM ({digest[:12]}…, not {expected[:12]}…), fetched "
            "twice; the archive may be about to replace it, so try again later"
        )

    def _download(self, file: ArchiveFile, partial: Path, reached: Callable[[ArchiveFile, float], None]) -> None:
        """Fetch what is missing of a part."""
        have = partial.stat().st_size if partial.exists() else 0
        answer = self._get(file.path, {"Range": f"bytes={have}-"} if have else {})
        with answer:
            if have and answer.status_code == requests.codes.requested_range_not_satisfiable:
                return  # it is all here
            if answer.status_code == requests.codes.not_found:
                raise DataError(f"{self.address}/{file.path}: is not there, though its CHECKSUM is; try again later")
            self._require_ok(answer)
            if answer.status_code != requests.codes.partial_content:
                have = 0
            told = answer.headers.get("Content-Length", "0")
            if not told.isdecimal():
                raise DataError(
                    f"{self.address}/{file.path}: is of {told!r} bytes, the server says; is this an archive?"
                )
            total = have + int(told)
            # What came before a connection ended is kept; that something is missing is found out below.
            answer.raw.enforce_content_length = False
            with partial.open("ab" if have else "wb") as out:
                for piece in answer.iter_content(_CHUNK_BYTES):
                    if self._over.is_set():
                        raise Unreachable("interrupted")
                    out.write(piece)
                    have += len(piece)
                    reached(file, min(0.99, have / total) if total else 0.0)
            if have < total:
                raise requests.ConnectionError(f"cut off after {have:,} of {total:,} bytes")

    def _get(self, path: str, headers: dict[str, str] | None = None) -> requests.Response:
        session: requests.Session | None = getattr(self._own, "session", None)
        if session is None:
            session = self._own.session = requests.Session()
            session.headers["User-Agent"] = "sage"
            # Digests are of the files as they lie there.
            session.headers["Accept-Encoding"] = "identity"
        timeout = (self._patience.connect_s, self._patience.read_s)
        return session.get(f"{self.address}/{path}", headers=headers, timeout=timeout, stream=True)

    def _require_ok(self, answer: requests.Response) -> None:
        """Raise what is to be tried again for an error of the server's, and DataError for any other."""
        status = answer.status_code
        if status >= 500 or status == requests.codes.too_many_requests:
            raise requests.ConnectionError(f"status {status}")
        if not answer.ok:
            raise DataError(f"{answer.url}: status {status} {answer.reason}")

    def _patiently(self, ask: Callable[[], Answer]) -> Answer:
        pause_s = self._patience.pause_s
        for attempt in range(1, self._patience.attempts + 1):
            try:
                return ask()
            except ValueError as error:
                # So are all the errors for what is no address. The archive's own is one; so it sent us on to another.
                raise DataError(f"{self.address}: leads to where nothing can be fetched ({_plainly(error)})") from error
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                if attempt == self._patience.attempts or self._over.is_set():
                    raise Unreachable(f"{self.host} cannot be reached: {_plainly(error)}") from error
            self._over.wait(pause_s)
            pause_s *= 2.0
        raise AssertionError


def _host_of(address: str) -> str:
    """The host of an archive, with its port. Raises OptionError for what is no address."""
    try:
        parts = urlsplit(address)
        name = (parts.hostname or "").encode("idna")
        # Asked for, the port is looked at.
        if parts.scheme in {"http", "https"} and name and parts.port != 0:
            requests.Request("GET", address).prepare()
            return parts.netloc
    except (ValueError, requests.RequestException) as error:
        raise OptionError(f"--archive {address}: is no address ({error})") from error
    raise OptionError(f"--archive {address}: is no address; write for example {ADDRESS}")


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.CHECKSUM")


def told_of(paths: Iterable[Path]) -> None:
    """Forget what these files have replaced, once a report says it."""
    for path in paths:
        # What stays is told once more.
        with suppress(OSError):
            _before(path).unlink(missing_ok=True)


def _before(path: Path) -> Path:
    """Holds the digest of the version that a file has replaced."""
    return path.with_name(f"{path.name}.replaced")


def _replaced(path: Path, digest: str) -> str | None:
    try:
        before = _before(path).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    return before if before not in {"", digest} else None


def _record(path: Path, line: str) -> None:
    """Write a small file at once. Raises OSError."""
    partial = path.with_name(f"{path.name}.part")
    partial.write_text(line)
    os.replace(partial, path)


def _absent(path: Path) -> Path:
    """Marks what the archive did not have when it was last asked."""
    return path.with_name(f"{path.name}.absent")


def _recorded(path: Path) -> str | None:
    """The digest that a file had when it was brought here; None where it is not."""
    try:
        return _beside(path).read_text().split()[0] if path.exists() else None
    except (OSError, IndexError, UnicodeDecodeError):
        return None


def _plainly(error: BaseException) -> str:
    """The innermost reason, in one line: requests and urllib3 wrap it several times."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    told = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(told).split())
