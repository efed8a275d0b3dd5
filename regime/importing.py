"""Classes of the user's own, found by ``package.module:Class``. Needs nothing heavy, and no part of NT.

The trading process and the model process load with the same words; what the user's code raises while it is loaded or
built comes out as :class:`~regime.errors.UserCodeRaised`.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regime.errors import UserCodeRaised

OURS = ("cli", "stress", "sage", "regime", "data")
"""SAGE's own packages: nobody else's module can go by these names."""

RAISED = (Exception, SystemExit)
"""What a user's code may end with; a call of ``sys.exit`` must not pass for the end of the command that runs it."""

_NAMED = 8
"""Classes that a message names at most, where none is near."""

_FORM = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


class NotUsable(Exception):
    """There is no such class, or it is not what is asked for. The message says what is wrong and what is near."""


@dataclass(frozen=True)
class Source:
    """Where a user's class comes from: its name as ``package.module:Class``, its module's file and that file's sha256.

    ``sha256`` is that of this one file: what the module imports, and the files it reads, are not in it.
    """

    spec: str
    file: str
    sha256: str


def importable(directory: Path) -> None:
    """Let modules in this directory be found first, as ``python`` does for a script's."""
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))
    importlib.invalidate_caches()


def locate(spec: str) -> Source:
    """Find the module of a class without running it; the packages that it lies in are run.

    Raises
    ------
    NotUsable
        If the name is none, or there is no such module.
    UserCodeRaised
        If a package around it raises.
    """
    module_name = _split(spec)[0]
    try:
        found = importlib.util.find_spec(module_name)
    except ModuleNotFoundError as error:
        raise _not_found(spec, module_name, error) from error
    except RAISED as error:
        raise UserCodeRaised.of(error, f"{spec}: {module_name} cannot be imported") from error
    if found is None or found.origin is None:
        raise _not_found(spec, module_name, None)
    return Source(spec, found.origin, _digest(found.origin))


def load(spec: str) -> type:
    """Import a class.

    Raises
    ------
    NotUsable
        If the name is none, or there is no such module or no such class in it.
    UserCodeRaised
        If the module raises.
    """
    module_name, name = _split(spec)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise UserCodeRaised.of(error, f"{spec}: {module_name} cannot be imported") from error
        raise _not_found(spec, module_name, error) from error
    except RAISED as error:
        raise UserCodeRaised.of(error, f"{spec}: {module_name} cannot be imported") from error
    found = getattr(module, name, None)
    if not isinstance(found, type):
        classes = [key for key, value in vars(module).items() if isinstance(value, type)]
        own = [key for key in classes if vars(module)[key].__module__ == module.__name__]
        near = difflib.get_close_matches(name, classes, n=3) or sorted(own)[:_NAMED] or ["no class at all"]
        near += ["..."] if len(own) > _NAMED == len(near) else []
        raise NotUsable(f"{spec}: {module.__file__} has no class {name}; it has {', '.join(near)}")
    return found


def require(
    spec: str, found: object, protocol: str, methods: Mapping[str, Sequence[str]], values: Collection[str]
) -> None:
    """Refuse what lacks parts of a protocol, naming all of them.

    Parameters
    ----------
    spec
        For the message.
    found
        The class, or an instance of it.
    protocol
        Name of the protocol, for the message.
    methods
        Names of the methods that must be there, and of the parameters they are called with, in order.
    values
        Names of the attributes or properties that must be there.

    Raises
    ------
    NotUsable
        If anything is missing.
    """
    lacking = [name for name in values if not hasattr(found, name)]
    for name, parameters in methods.items():
        method = getattr(found, name, None)
        if not callable(method):
            lacking.append(f"{name}({', '.join(parameters)})")
        elif not _takes(method, parameters, bound=not isinstance(found, type)):
            lacking.append(f"{name} that takes ({', '.join(parameters)})")
    if lacking:
        raise NotUsable(f"{spec} is no {protocol}: it lacks {' and '.join(lacking)}")


def build(spec: str, cls: type, offered: Mapping[str, Callable[[], Any]]) -> Any:
    """Call a class's constructor with those of the offered values that it has parameters for, by name.

    Raises
    ------
    NotUsable
        If it asks for anything else.
    UserCodeRaised
        If it raises.
    """
    wanted = constructor_parameters(spec, cls, offered)
    values = {name: offered[name]() for name in wanted}
    try:
        return cls(**values)
    except RAISED as error:
        raise UserCodeRaised.of(error, f"{spec}: the constructor raised {_named(error)}") from error


def constructor_parameters(spec: str, cls: type, offered: Collection[str]) -> list[str]:
    """Those of the offered names that a constructor takes. Raises NotUsable if it cannot do without others."""
    try:
        parameters = inspect.signature(cls).parameters.values()
    except ValueError:  # a compiled class tells nothing: it gets what its kind always gets
        return [name for name in offered if name == "config"]
    named = [found for found in parameters if found.kind in {found.POSITIONAL_OR_KEYWORD, found.KEYWORD_ONLY}]
    needed = [found.name for found in named if found.default is found.empty and found.name not in offered]
    needed += [found.name for found in parameters if found.kind is found.POSITIONAL_ONLY]
    if needed:
        raise NotUsable(
            f"{spec}: its constructor asks for {', '.join(needed)}; what it can be given is {', '.join(offered)}"
        )
    return [found.name for found in named if found.name in offered]


def _split(spec: str) -> tuple[str, str]:
    if not _FORM.fullmatch(spec):
        advice = "write package.module:Class"
        if "/" in spec or ".py" in spec:
            advice = "name the module, not its file: package.module:Class, found from the current directory"
        raise NotUsable(f"{spec!r} names no class; {advice}")
    module_name, _, name = spec.partition(":")
    return module_name, name


def _not_found(spec: str, module_name: str, error: ModuleNotFoundError | None) -> NotUsable:
    missing = (error.name if error is not None else None) or module_name
    top = module_name.partition(".")[0]
    advice = "it is looked for in the current directory and where Python finds its modules"
    if top in OURS:
        advice = f"{top} is a package of SAGE's own, so that yours cannot be found: rename it"
    return NotUsable(f"{spec}: no module {missing}; {advice}")


def _takes(method: Callable[..., Any], parameters: Sequence[str], *, bound: bool) -> bool:
    try:
        signature = inspect.signature(method)
        signature.bind(*([None] * (len(parameters) + (not bound))))
    except ValueError:  # compiled, and silent about it
        return True
    except TypeError:
        return False
    return True


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _digest(file: str) -> str:
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:  # built in, or inside an archive
        return ""
