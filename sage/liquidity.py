"""What a bar's volume bears: orders beyond a share of it are cut, and what was cut is counted.

A bar simulation lets an order of any size fill at the close, as if it moved no price. Where the volume is known, an
order that is small beside it comes near to that; a larger one does not, and is sent in parts over several bars.
"""

from __future__ import annotations

from dataclasses import dataclass

from data.instruments import Kind


def volume_is_real(kind: Kind) -> bool:
    """Whether volume counts what was traded. That of FX counts ticks, whoever delivers it."""
    return kind is not Kind.FX


@dataclass
class VolumeLimit:
    """How much one bar bears, and what that has cut off so far.

    ``share`` is that of a bar's volume, 0 for no limit. Reductions are bound by it like everything else, those forced
    by a poorer level too: they start when they are due, and take as many bars as the volume asks for.
    """

    share: float
    orders_cut: int = 0
    value_cut: float = 0.0
    _volume_known: bool = False

    def at(self, volume: float) -> float | None:
        """The largest quantity for a bar of this volume, or None for no limit.

        A volume of 0 says nothing as long as no bar had another one, as from sources without volume; afterwards it
        says that nothing was traded, and nothing can be.
        """
        self._volume_known = self._volume_known or volume > 0
        return self.share * volume if self.share and self._volume_known else None

    def cut(self, value: float) -> None:
        """Count a decision of which orders worth ``value``, in quote currency, were not sent."""
        self.orders_cut += 1
        self.value_cut += value
