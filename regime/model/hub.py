"""One file of a hub's model, fetched by the hub's own client into its own cache, and checked before anyone reads it.

The client settles where (``HF_HOME``), from whom (``HF_ENDPOINT``, proxies), as whom (``HF_TOKEN``) and whether at all
(``HF_HUB_OFFLINE``). It reads these when imported, hence inside functions. What SAGE adds: a partial file survives its
process and is continued by the next one, and nothing enters the cache before its size and sha256 are right.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from regime.errors import ModelUnavailable
from regime.model.checkpoint import sha256_of
from regime.model.registry import Sha256From

OnProgress = Callable[[str, int, int], None]
"""Called with a stage's name, and how much of how much is done."""

OnNote = Callable[[str], None]
"""Called with a line for people."""

_PAUSES_S = (1.0, 4.0)
"""Waits before a download that the hub broke off is tried again; the client itself has tried before that."""

_SERVER_ERROR = 500
_TAG = r"[0-9A-Za-z_-]{0,200}"
_MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Source:
    """A file to fetch. ``size_bytes`` and ``sha256`` are None where only the hub can tell."""

    repo: str
    revision: str
    file: str
    size_bytes: int | None = None
    sha256: str | None = None
    sha256_from: Sha256From = "hub"

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}"


@dataclass(frozen=True)
class Fetched:
    """A file that is what it should be: its sha256 was known from elsewhere and is right."""

    path: Path
    size_bytes: int
    sha256: str
    sha256_from: Sha256From
    endpoint: str


@dataclass(frozen=True)
class _Announced:
    """What the hub says of the file before it is fetched."""

    etag: str
    size_bytes: int
    sha256: str


def fetch(source: Source, on_progress: OnProgress, on_note: OnNote = lambda _text: None) -> Fetched:
    """The file from the hub's cache, else from the hub; ``on_note`` hears when the hub has to be asked again.

    Raises
    ------
    ModelUnavailable
        If it cannot be had, or is not the file it should be; nothing of it is kept then.
    OSError
        If this machine cannot store it; ``filename`` says where.
    """
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise ModelUnavailable(f"huggingface_hub is needed to pull a model: {error}") from error
    with _client_heard(on_note):
        return _cached(source, on_progress) or _fetched(source, on_progress)


def _fetched(source: Source, on_progress: OnProgress) -> Fetched:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.file_download import repo_folder_name
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    cache, folder = Path(constants.HF_HUB_CACHE), repo_folder_name(repo_id=source.repo, repo_type="model")
    with _hub_errors(source):
        announced = _announced(source)
        blob = cache / folder / "blobs" / announced.etag
        lock = cache / ".locks" / folder / f"{announced.etag}.lock"
        for directory in (blob.parent, lock.parent):
            directory.mkdir(parents=True, exist_ok=True)
        # The client's own lock: tirex-ts or another program may be fetching the same file.
        with WeakFileLock(lock):
            if not (blob.is_file() and sha256_of(blob) == announced.sha256):
                _fetch_blob(source, announced, blob, on_progress)
        # With the file in its place the client only notes which revision it belongs to.
        pointer = Path(hf_hub_download(source.repo, source.file, revision=source.revision))
    path = pointer if pointer.resolve() == blob.resolve() else blob
    return Fetched(path, announced.size_bytes, announced.sha256, source.sha256_from, constants.ENDPOINT)


def _cached(source: Source, on_progress: OnProgress) -> Fetched | None:
    """What an earlier pull or another program left in the hub's cache, if it is sound."""
    from huggingface_hub import constants, try_to_load_from_cache

    found = try_to_load_from_cache(source.repo, source.file, revision=source.revision)
    if not isinstance(found, str):
        return None
    path = Path(found)
    # The cache names a file by the hub's tag, which for a large file is its sha256.
    tag = path.resolve().name
    expected = source.sha256 or (tag if _is_sha256(tag) else None)
    if expected is None:
        return None
    on_progress("checking", 0, 1)
    if sha256_of(path) != expected:
        if constants.is_offline_mode():
            raise ModelUnavailable(f"{source}: {path} in the hub's cache is damaged; pull again without HF_HUB_OFFLINE")
        return None
    on_progress("checking", 1, 1)
    return Fetched(path, path.stat().st_size, expected, source.sha256_from, constants.ENDPOINT)


def _announced(source: Source) -> _Announced:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(source.repo, source.file, revision=source.revision, endpoint=constants.ENDPOINT)
    found = get_hf_file_metadata(url, retry_on_errors=True)
    if found.commit_hash != source.revision:
        raise ModelUnavailable(
            f"{source}: {constants.ENDPOINT} answers with revision {found.commit_hash}; is HF_ENDPOINT a model hub?"
        )
    tag = found.etag or ""
    if not re.fullmatch(_TAG, tag):
        # The client's cache names a file by it.
        raise ModelUnavailable(
            f"{source}: {constants.ENDPOINT} gives {source.file} the tag {tag!r}; is it a model hub?"
        )
    sha256 = source.sha256 or (tag if _is_sha256(tag) else None)
    if sha256 is None:
        raise ModelUnavailable(
            f"{source}: {constants.ENDPOINT} gives no sha256 for {source.file}; give the right one with --sha256"
        )
    if _is_sha256(tag) and tag != sha256:
        raise ModelUnavailable(
            f"{source}: {constants.ENDPOINT} has another {source.file} than expected: its sha256 is {tag}, "
            f"the {source.sha256_from} says {sha256}; it was not downloaded"
        )
    if found.size is None or found.size != (source.size_bytes or found.size):
        raise ModelUnavailable(
            f"{source}: {constants.ENDPOINT} has another {source.file} than expected: its size is {found.size} bytes, "
            f"the {source.sha256_from} says {source.size_bytes}; it was not downloaded"
        )
    return _Announced(tag or sha256, found.size, sha256)


def _fetch_blob(source: Source, announced: _Announced, blob: Path, on_progress: OnProgress) -> None:
    partial = blob.with_name(f"{announced.etag}.sage.incomplete")
    continued = _size(partial) > 0
    _receive(source, announced, partial, on_progress)
    if continued and not _is_right(partial, announced):
        # What was left of an earlier attempt may have been to blame.
        partial.unlink()
        _receive(source, announced, partial, on_progress)
    on_progress("checking", 0, 1)
    size_bytes, sha256 = _size(partial), sha256_of(partial)
    if (size_bytes, sha256) != (announced.size_bytes, announced.sha256):
        partial.unlink()
        raise ModelUnavailable(
            f"{source}: what came for {source.file} is not what was asked for: {size_bytes} bytes with sha256 "
            f"{sha256}, expected {announced.size_bytes} bytes with {announced.sha256}; it was not loaded, and nothing "
            "of it was kept"
        )
    os.replace(partial, blob)
    on_progress("checking", 1, 1)


def _receive(source: Source, announced: _Announced, partial: Path, on_progress: OnProgress) -> None:
    """Fill the partial file from where it ends."""
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers, disable_progress_bars  # type: ignore[attr-defined]

    disable_progress_bars("huggingface_hub.http_get")
    url = hf_hub_url(source.repo, source.file, revision=source.revision, endpoint=constants.ENDPOINT)
    with naming(partial), _WatchedFile(partial, announced.size_bytes, on_progress) as stream:
        for pause_s in (*_PAUSES_S, None):
            begin = stream.seek(0, os.SEEK_END)
            if begin > announced.size_bytes:
                begin = stream.truncate(stream.seek(0))
            try:
                http_get(url, stream, resume_size=begin, headers=build_hf_headers(), expected_size=announced.size_bytes)
                break
            except _transport_error() as error:
                refused = isinstance(error, HfHubHTTPError) and error.response.status_code < _SERVER_ERROR
                if pause_s is None or refused:
                    raise
                time.sleep(pause_s)
            except OSError as error:
                # The client's complaint about a wrong length; the check of what came says more.
                if error.errno is not None or isinstance(error, ConnectionError):
                    raise
                break
        stream.flush()
        os.fsync(stream.fileno())


class _WatchedFile(io.BufferedRandom):
    """A file that tells how far it has come with each write."""

    def __init__(self, path: Path, size_bytes: int, on_progress: OnProgress) -> None:
        super().__init__(io.FileIO(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+"))
        self._size_bytes, self._on_progress = size_bytes, on_progress

    def write(self, content: bytes | bytearray | memoryview, /) -> int:  # type: ignore[override]
        """Write, and say where that led."""
        written = super().write(content)
        done, size = min(self.tell(), self._size_bytes), self._size_bytes
        self._on_progress("downloading (MB)", done // _MEGABYTE, max(size // _MEGABYTE, 1))
        return written


class _Ear(logging.Handler):
    """Says once, in a line of ours, what the hub's client says twice for every try; other warnings in its own words."""

    def __init__(self, hub: str, on_note: OnNote) -> None:
        super().__init__(logging.WARNING)
        self._hub, self._on_note = hub, on_note
        self._told = False

    def emit(self, record: logging.LogRecord) -> None:
        """Hear one line of the client."""
        said = record.getMessage().splitlines()[0]
        if not re.search(r"thrown while requesting|while downloading|[Rr]etry", said):
            self._on_note(f"{self._hub}: {said}")
        elif "Rate limited" in said:
            self._on_note(f"{self._hub} asks for patience: {said}")
        elif not self._told:
            self._told = True
            self._on_note(f"{self._hub} does not answer as it should; trying again for a while")


@contextlib.contextmanager
def _client_heard(on_note: OnNote) -> Iterator[None]:
    """Keep the client's warnings from standing before our lines; who asked for them by HF_HUB_VERBOSITY gets them."""
    from huggingface_hub import constants
    from huggingface_hub.utils.logging import get_logger

    if os.environ.get("HF_HUB_VERBOSITY"):
        yield
        return
    # The client gives this logger its handler when the module is first needed, which importing it has seen to.
    logger = get_logger("huggingface_hub")
    own, propagates = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [_Ear(constants.ENDPOINT, on_note)], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = own, propagates


@contextlib.contextmanager
def _hub_errors(source: Source) -> Iterator[None]:
    """Say what went wrong between here and the hub: what, where, and what to do. Trouble of this machine passes."""
    from huggingface_hub import constants, errors

    hub, page = constants.ENDPOINT, f"{constants.ENDPOINT}/{source.repo}"
    try:
        yield
    except errors.GatedRepoError as error:
        said = f"access is gated; accept its terms on {page}, then log in: HF_TOKEN, or 'hf auth login'"
        raise ModelUnavailable(f"{source}: {said}") from error
    except errors.RevisionNotFoundError as error:
        said = f"{hub} has no such revision, or no longer; {page}/commits/main lists them"
        raise ModelUnavailable(f"{source}: {said}") from error
    except errors.RepositoryNotFoundError as error:
        said = f"{hub} has no such model, or it is private; check the name, or log in: HF_TOKEN, or 'hf auth login'"
        raise ModelUnavailable(f"{source}: {said}") from error
    except errors.RemoteEntryNotFoundError as error:
        raise ModelUnavailable(f"{source}: there is no {source.file} in it on {hub}") from error
    except errors.OfflineModeIsEnabled as error:
        said = f"not in the hub's cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE forbids to fetch it; unset it"
        raise ModelUnavailable(f"{source}: {said}") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        advice = "try again later" if status >= _SERVER_ERROR else "check HF_TOKEN, HF_ENDPOINT and your proxy"
        raise ModelUnavailable(f"{source}: {hub} answered with HTTP status {status}; {advice}") from error
    except _transport_error() as error:
        said = f"{hub} could not be reached, or broke off ({type(error).__name__}: {error})"
        advice = "check the network, HF_ENDPOINT and your proxy; the next pull goes on from what came"
        raise ModelUnavailable(f"{source}: {said}; {advice}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise ModelUnavailable(f"{source}: {hub}: {error}") from error


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give errors of writing the file's name, and say what a full disk means here."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        hint = "; make room, the next pull goes on from what came" if full else ""
        raise OSError(error.errno, f"{error.strerror}{hint}", str(path)) from error


def _transport_error() -> type[Exception]:
    """What the HTTP library beneath the client raises; which library that is has changed between its versions."""
    from huggingface_hub.errors import HfHubHTTPError

    base = HfHubHTTPError.__bases__[0]
    assert issubclass(base, Exception)
    return base


def _is_right(path: Path, announced: _Announced) -> bool:
    return _size(path) == announced.size_bytes and sha256_of(path) == announced.sha256


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _is_sha256(text: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{64}", text) is not None
