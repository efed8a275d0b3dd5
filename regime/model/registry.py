"""Names of models and where they lie: the hub's models that SAGE knows, and those that were pulled.

A hub model is named ``owner/NAME`` or ``owner/NAME@REVISION``, the revision being the 40 hex digits of a commit: a
branch or a tag may be another model tomorrow. What was pulled lies converted in a directory of its own, see
:mod:`regime.model.hub`. Neither torch nor the hub's client is needed here.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Literal

import msgspec

from regime.errors import ModelUnavailable

PROVENANCE_FILE = "provenance.json"
Sha256From = Literal["pin", "option", "hub"]
"""Whose word a published file's sha256 was: SAGE's table of pins, ``--sha256``, or the hub itself."""
ATTRIBUTION = "Built with technology from NXAI"

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
# The hub allows neither -- nor .. in a name, and what ends like a file is meant as a path.
_HUB_NAME = re.compile(rf"(?!.*(?:--|\.\.|\.ckpt$))(?P<repo>{_PART}/{_PART})(?:@(?P<revision>.*))?")
_DIRECTORY = re.compile(rf"(?P<owner>{_PART}?)--(?P<name>{_PART})@(?P<revision>[0-9a-f]{{40}})")


@dataclass(frozen=True)
class Pin:
    """One commit of a hub model, and the size (bytes) and sha256 of its file there."""

    revision: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Licence:
    """Terms that must be accepted before a model is pulled; ``file`` ships with SAGE."""

    name: str
    file: str
    attribution: str

    @property
    def path(self) -> Path:
        """Where its text lies on this machine."""
        beside = Path(__file__).parents[2] / self.file
        if beside.is_file():
            return beside
        # In an installed package the text lies with the distribution's metadata.
        try:
            found = [each for each in files("sage") or [] if str(each).endswith(f"licenses/{self.file}")]
        except PackageNotFoundError:
            found = []
        return Path(str(found[0].locate())) if found else beside


@dataclass(frozen=True)
class HubModel:
    """A model that SAGE can pull by name. Without a pin, pulling needs ``--revision``."""

    repo: str
    about: str
    licence: Licence
    pin: Pin | None
    file: str = "model.ckpt"


NXAI_COMMUNITY = Licence("NXAI Community License", "LICENSES/NXAI-COMMUNITY.txt", ATTRIBUTION)

# The pin of NX-AI/TiRex is what several unrelated public projects recorded when they fetched it: one revision, one
# size, one sha256. The size is that of 35,291,200 float32 parameters and 65 kB of pickle.
HUB_MODELS = (
    HubModel(
        "NX-AI/TiRex",
        "NX-AI's xLSTM forecaster, 35 M parameters",
        NXAI_COMMUNITY,
        Pin(
            revision="63c740922493f5fbe60b277609ec62babfba2762",
            size_bytes=141_230_262,
            sha256="b8c3f5a036c63272ce4b91c00187e26922a394cb6cb49d4e16db070ad0422314",
        ),
    ),
)
"""The one table of pins: a model more is an entry more."""


def known_model(repo: str) -> HubModel | None:
    """The table's entry for a repository, which the hub tells apart without regard to case."""
    return next((model for model in HUB_MODELS if model.repo.casefold() == repo.casefold()), None)


def parse_revision(text: str) -> str:
    """The commit that a text names, in small letters as the hub writes it. Raises ValueError for what is no commit."""
    revision = text.lower()
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    stray = re.search(r"[^0-9a-f]", revision)
    found = f"{stray[0]!r} is none" if stray else f"here are {len(text)}"
    raise ValueError(
        f"a revision is the 40 lower-case hex digits of a commit, {found}; branches, tags and short forms may change"
    )


@dataclass(frozen=True)
class HubName:
    """``owner/NAME``, and a revision if one was given."""

    repo: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> HubName | None:
        """None if the text cannot name a hub model. Raises ValueError for a revision that is not 40 hex digits."""
        found = _HUB_NAME.fullmatch(text)
        if found is None:
            return None
        repo, revision = found["repo"], found["revision"]
        if revision is not None:
            try:
                revision = parse_revision(revision)
            except ValueError as error:
                raise ValueError(f"{text!r}: {error}") from error
        known = known_model(repo)
        return cls(known.repo if known else repo, revision)

    @property
    def pull_command(self) -> str:
        """What to type to have it."""
        known = known_model(self.repo)
        if self.revision and not (known and known.pin and known.pin.revision == self.revision):
            return f"sage model pull {self.repo} --revision {self.revision}"
        return f"sage model pull {self.repo}" + ("" if known and known.pin else " --revision <40 hex digits>")

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}" if self.revision else self.repo


@dataclass(frozen=True)
class Provenance:
    """Where a pulled model came from, written beside its weights.

    ``sha256`` is that of the file as published, known beforehand from the ``sha256_from`` named. ``weights_sha256`` is
    that of the safetensors made from it. Times are ISO 8601 in UTC.
    """

    repo: str
    revision: str
    file: str
    size_bytes: int
    sha256: str
    sha256_from: Sha256From
    weights_sha256: str
    endpoint: str
    pulled_at: str
    licence: str | None
    licence_accepted_at: str | None
    torch: str

    @property
    def name(self) -> HubName:
        """The model's full name."""
        return HubName(self.repo, self.revision)

    def to_json(self) -> str:
        """For the file."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def read_provenance(directory: Path) -> Provenance | None:
    """None where nothing is recorded. Raises ModelUnavailable for a record that is damaged."""
    path = directory / PROVENANCE_FILE
    try:
        # What a later version may record beside these fields is passed over.
        return msgspec.json.decode(path.read_bytes(), type=Provenance)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ModelUnavailable(f"{path}: not readable ({error.strerror})") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise ModelUnavailable(f"{path} is damaged ({error}); remove {directory} and pull the model again") from error


def models_root() -> Path:
    """``$SAGE_MODELS`` if set, else ``sage/models`` in ``$XDG_DATA_HOME`` or ``~/.local/share``."""
    if chosen := os.environ.get("SAGE_MODELS"):
        return Path(chosen).expanduser()
    data = Path(os.environ.get("XDG_DATA_HOME", ""))
    # The XDG specification: a relative path there is invalid and to be ignored.
    return (data if data.is_absolute() else Path.home() / ".local" / "share") / "sage" / "models"


def directory_of(repo: str, revision: str, root: Path) -> Path:
    """Where a pulled model lies."""
    return root / f"{repo.replace('/', '--')}@{revision}"


def pulled_models(root: Path) -> dict[HubName, Path]:
    """What was pulled, by full name, sorted."""
    found = {}
    for directory in sorted(root.iterdir()) if root.is_dir() else []:
        match = _DIRECTORY.fullmatch(directory.name)
        if match and directory.is_dir():
            found[HubName(f"{match['owner']}/{match['name']}", match["revision"])] = directory
    return found


def find_pulled(name: HubName) -> Path:
    """The directory of a pulled model; without a revision the pinned one, else the only one.

    Raises
    ------
    ModelUnavailable
        If it was not pulled, or several were and none is the pinned one.
    """
    root = models_root()
    there = {each.revision: path for each, path in pulled_models(root).items() if each.repo == name.repo}
    if name.revision is None and there:
        known = known_model(name.repo)
        if known and known.pin and known.pin.revision in there:
            return there[known.pin.revision]
        if len(there) == 1:
            return next(iter(there.values()))
        choices = ", ".join(f"{name.repo}@{revision}" for revision in there)
        raise ModelUnavailable(f"model {str(name)!r}: several revisions are in {root}; name one: {choices}")
    if name.revision in there:
        return there[name.revision]
    raise ModelUnavailable(
        f"model {str(name)!r}: no such path, and not among the models pulled to {root}; to pull it: {name.pull_command}"
    )
