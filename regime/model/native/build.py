"""Compile the forward pass, once for a source, a compiler and a processor; afterwards it is only loaded.

Nothing is compiled at installation: a wheel or an image may move to a machine with other instructions. Where there
is no compiler, or it fails, :func:`library` says why, and the engine in torch takes over.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parent / "forward.c"

_FLAGS = ("-O3", "-fno-math-errno", "-shared", "-fPIC", "-pthread")
_COMPILE_TIMEOUT_S = 300.0


class NoNativeEngine(Exception):
    """The forward pass could not be compiled or loaded; the message says why."""


@dataclass(frozen=True)
class Library:
    """A compiled forward pass; ``build_id`` names source, compiler and processor in 8 hex digits."""

    path: Path
    build_id: str


@cache
def library() -> Library:
    """The compiled library, made if it is not there.

    Raises
    ------
    NoNativeEngine
        If there is no compiler, or it fails.
    """
    compiler, flags = _compiler(), (*_FLAGS, f"-march={instruction_set()}")
    build_id = _build_id(compiler, flags)
    for directory in (cache_directory(), Path(tempfile.gettempdir()) / f"sage-native-{os.getuid()}"):
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Whoever can write here can run code in this process.
            if directory.stat().st_uid != os.getuid():
                continue
            path = _intact(directory, build_id) or _compile(compiler, flags, directory, build_id)
        except OSError:
            continue
        return Library(path, build_id)
    raise NoNativeEngine(f"no place to compile into: {cache_directory()} cannot be written; set XDG_CACHE_HOME")


def cache_directory() -> Path:
    """Where compiled libraries are kept: ``$XDG_CACHE_HOME/sage/native``, by default under ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "sage" / "native"


def instruction_set() -> str:
    """What to compile for: ``$SAGE_MARCH``, any name that the compiler's ``-march`` knows, else this processor.

    Machines that are to agree to the bit need one in common, such as ``x86-64-v3``.
    """
    return os.environ.get("SAGE_MARCH") or "native"


def _compiler() -> str:
    wanted = os.environ.get("CC")
    for candidate in (wanted,) if wanted else ("cc", "gcc", "clang"):
        found = shutil.which(candidate)
        if found:
            return found
    raise NoNativeEngine(f"no C compiler found ({'CC=' + wanted if wanted else 'cc, gcc or clang'})")


def _build_id(compiler: str, flags: tuple[str, ...]) -> str:
    try:
        version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError) as error:
        why = error.strerror if isinstance(error, OSError) else "it fails, asked for its version"
        raise NoNativeEngine(f"the compiler {compiler} does not run: {why}") from error
    digest = hashlib.sha256(SOURCE.read_bytes())
    processor = _processor() if instruction_set() == "native" else platform.machine()
    for part in (version, " ".join(flags).encode(), processor.encode()):
        digest.update(b"\0" + part)
    return digest.hexdigest()[:8]


def _processor() -> str:
    """What the processor can do: a library made for one must not run on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return next((line for line in lines if line.lower().startswith(("flags", "features"))), platform.machine())


def _intact(directory: Path, build_id: str) -> Path | None:
    """A library made before whose content is what its name says; loading a damaged one would kill the process."""
    for path in sorted(directory.glob(f"forward-{build_id}-*.so")):
        if path.name == _name(build_id, path.read_bytes()):
            return path
        path.unlink(missing_ok=True)
    return None


def _name(build_id: str, content: bytes) -> str:
    return f"forward-{build_id}-{hashlib.sha256(content).hexdigest()[:16]}.so"


def _compile(compiler: str, flags: tuple[str, ...], directory: Path, build_id: str) -> Path:
    handle, unfinished = tempfile.mkstemp(dir=directory, suffix=".so.part")
    os.close(handle)
    try:
        done = subprocess.run(
            [compiler, *flags, "-o", unfinished, str(SOURCE), "-lm"],
            capture_output=True,
            text=True,
            check=False,
            timeout=_COMPILE_TIMEOUT_S,
        )
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["no message"])[0]
            raise NoNativeEngine(f"{compiler} failed: {said}")
        # Two processes may compile at once; each puts a whole library in place.
        target = directory / _name(build_id, Path(unfinished).read_bytes())
        os.replace(unfinished, target)
        return target
    except subprocess.TimeoutExpired as error:
        raise NoNativeEngine(f"{compiler} took longer than {_COMPILE_TIMEOUT_S:.0f} s") from error
    finally:
        Path(unfinished).unlink(missing_ok=True)
