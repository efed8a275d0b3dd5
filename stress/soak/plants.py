"""Leaks on purpose: what a soak must find, and say in which process."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from data.errors import OptionError
from stress.misbehaviour import Control, Misbehaviour

MB = 10**6


class PlantKind(StrEnum):
    """What is held and never given back."""

    OBJECTS = "objects"
    NATIVE = "native"
    CACHE = "cache"
    FILES = "files"


class PlantedIn(StrEnum):
    """Where."""

    TRADING = "trading"
    MODEL = "model"


@dataclass(frozen=True)
class Plant:
    """A leak of so many megabytes an hour, or so many file descriptors an hour where it is of files."""

    kind: PlantKind
    where: PlantedIn
    per_hour: float

    @classmethod
    def parse(cls, text: str) -> Plant:
        """Read ``native@trading=500``. Raises OptionError for what does not read so."""
        kinds, places = "|".join(PlantKind), "|".join(PlantedIn)
        found = re.fullmatch(rf"({kinds})@({places})=(\d+(?:\.\d+)?)", text)
        if found is None or float(found[3]) <= 0:
            raise OptionError(f"--plant {text}: write {kinds}@{places}=MB_PER_HOUR, such as native@trading=500")
        plant = cls(PlantKind(found[1]), PlantedIn(found[2]), float(found[3]))
        if plant.where is PlantedIn.MODEL and plant.kind is not PlantKind.NATIVE:
            raise OptionError(f"--plant {text}: in the model process only native memory can be planted")
        return plant

    def __str__(self) -> str:
        return f"{self.kind}@{self.where}={self.per_hour:g}"


class Planter:
    """Makes a process leak at a steady rate, by the stopwatch.

    Parameters
    ----------
    plants
        What to leak.
    control
        Makes the model process hold on to memory.
    stopwatch
        Seconds that pass.
    """

    def __init__(self, plants: tuple[Plant, ...], control: Control, stopwatch: Callable[[], float]) -> None:
        self._plants = plants
        self._control = control
        self._stopwatch = stopwatch
        self._began = stopwatch()
        self._done = dict.fromkeys(plants, 0.0)
        self._objects: list[dict[str, object]] = []
        self._cache: dict[int, np.ndarray[tuple[int], np.dtype[np.float64]]] = {}
        self._libc = ctypes.CDLL(None)
        self._libc.malloc.restype = ctypes.c_void_p

    def between_bars(self) -> None:
        """Leak what is due by now."""
        hours = (self._stopwatch() - self._began) / 3600.0
        for plant in self._plants:
            due = plant.per_hour * hours - self._done[plant]
            if plant.kind is PlantKind.FILES:
                for _ in range(int(due)):
                    os.open(os.devnull, os.O_RDONLY)
                self._done[plant] += int(due)
            else:
                self._done[plant] += due
                self._hold(plant, round(due * MB))

    def _hold(self, plant: Plant, size: int) -> None:
        if plant.where is PlantedIn.MODEL:
            # Hoarded with the next answer, and kept while the misbehaviour lasts.
            self._control.set(Misbehaviour.HOARD, float(max(1, size)))
            return
        match plant.kind:
            case PlantKind.OBJECTS:
                while size > 0:
                    self._objects.append({"bar": len(self._objects), "text": f"{len(self._objects):200d}"})
                    size -= _OBJECT_BYTES
            case PlantKind.NATIVE if size > 0:
                place = self._libc.malloc(ctypes.c_size_t(size))
                if place:
                    # Written to, so that it is resident.
                    ctypes.memset(place, 1, size)
            case PlantKind.CACHE if size > 0:
                self._cache[len(self._cache)] = np.ones(max(1, size // 8))


_OBJECT_BYTES = 184 + 249 + 32 + 8
"""A dictionary of two entries, a string of 200 letters, a number and its place in the list."""
