"""What can go wrong with data, and the exit code each kind ends with.

DataError                 the data is bad: exit code 3
    AmbiguousSource       a file fits several readings; the message names them
    CatalogError          the catalog cannot be read or written as asked
        CatalogDamaged    something in it is not as it was written
OptionError               what was asked for makes no sense: exit code 2
"""

from __future__ import annotations

from pathlib import Path


class DataError(Exception):
    """Bad data. The message says what is wrong, where, and what to do."""


class AmbiguousSource(DataError):
    """A file that can be read in several ways. The message names the candidates."""


class CatalogError(DataError):
    """A catalog that cannot be read, or not be written as asked."""


class CatalogDamaged(CatalogError):
    """Something in a catalog is not as it was written: ``path`` says where, ``told`` what, ``mend`` what to do."""

    def __init__(self, path: Path, told: str, mend: str) -> None:
        super().__init__(f"{path}: {told}; {mend}")
        self.path, self.told, self.mend = path, told, mend


class OptionError(Exception):
    """Options that make no sense, alone or together."""
