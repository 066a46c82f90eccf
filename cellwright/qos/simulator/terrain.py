"""Where cells, edge zones and devices are, which device an identifier means, and what is closest to it."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Iterable
from typing import TypeVar

from cellwright.qos.forms import Device
from cellwright.qos.simulator.options import Cell, NetworkOptions, Place, Terminal, Zone
from cellwright.qos.simulator.refusal import Refusal, not_found

_EARTH_M = 6_371_000.0
_REMEMBERED = 100_000  # places whose cell is kept
_Placed = TypeVar("_Placed", bound=Place)


def distance_m(a: Place, b: Place) -> float:
    """Great-circle distance (haversine), metres."""
    la, lb = math.radians(a.latitude), math.radians(b.latitude)
    d = math.radians(b.longitude - a.longitude)
    h = math.sin((lb - la) / 2) ** 2 + math.cos(la) * math.cos(lb) * math.sin(d / 2) ** 2
    return 2 * _EARTH_M * math.asin(min(1.0, math.sqrt(h)))


def closest(to: Place, among: Iterable[_Placed]) -> _Placed:
    """The nearest of at least one; the first of several."""
    return min(among, key=lambda place: distance_m(to, place))


class Terrain:
    """Everything that has a place."""

    def __init__(self, options: NetworkOptions) -> None:
        self.cells = {cell.name: cell for cell in options.cells}
        self._served: dict[tuple[float, float], Cell] = {}
        self.zones = {zone.id: zone for zone in options.zones}
        self.devices: dict[str, Terminal] = {}
        self._by: dict[tuple[str, str], str] = {}
        for device in options.devices:
            self.put(device)

    def put(self, device: Terminal) -> None:
        """Know a device, or know it anew. Raises Refusal: an identifier is another's."""
        keys = _keys(device.identifiers)
        if taken := [key for key in keys if self._by.get(key, device.name) != device.name]:
            raise Refusal(409, "CONFLICT", f"{taken[0][1]} is {self._by[taken[0]]} already")
        self.drop(device.name)
        self.devices[device.name] = device
        self._by.update(dict.fromkeys(keys, device.name))

    def drop(self, name: str) -> None:
        """Know a device no more."""
        if device := self.devices.pop(name, None):
            for key in _keys(device.identifiers):
                del self._by[key]

    def move(self, name: str, to: Place) -> Terminal:
        """Put a device somewhere else. Raises Refusal."""
        if name not in self.devices:
            raise not_found(f"there is no device {name}")
        moved = self.devices[name].model_copy(update={"longitude": to.longitude, "latitude": to.latitude})
        self.devices[name] = moved
        return moved

    def find(self, device: Device) -> Terminal | None:
        """Whom the first identifier that is known means, in the order of `identified`."""
        for one in identified(device):
            for key in _keys(one):
                if name := self._by.get(key):
                    return self.devices[name]
        return None

    def at_address(self, address: str) -> Terminal | None:
        """The device that has an IPv4 address."""
        name = self._by.get(("private", address)) or self._by.get(("public", address))
        return self.devices.get(name or "")

    def cell_of(self, place: Place) -> Cell:
        """The cell that serves a place."""
        at = (place.longitude, place.latitude)
        if at not in self._served:
            if len(self._served) >= _REMEMBERED:
                self._served.clear()
            self._served[at] = closest(place, self.cells.values())
        return self._served[at]

    def put_cell(self, cell: Cell) -> None:
        """Know a cell, or know it anew."""
        self.cells[cell.name] = cell
        self._served.clear()

    def zone_of(self, place: Place) -> Zone:
        """The closest edge zone. Raises Refusal: there is none."""
        if not self.zones:
            raise not_found("The network has no edge cloud zone.")
        return closest(place, self.zones.values())


def identified(device: Device) -> list[Device]:
    """Its supported identifiers one by one, in the order in which the network prefers them."""
    given = (
        {"ipv4_address": device.ipv4_address},
        {"ipv6_address": device.ipv6_address},
        {"phone_number": device.phone_number},
    )
    return [Device.model_construct(**one) for one in given if any(value is not None for value in one.values())]


def _keys(device: Device) -> list[tuple[str, str]]:
    """What a device is found by: behind one public address, the private address or the port tells devices apart."""
    keys = []
    if v4 := device.ipv4_address:
        if v4.private_address:
            keys.append(("private", v4.private_address))
        if v4.public_port is not None:
            keys.append(("port", f"{v4.public_address}:{v4.public_port}"))
        if v4.public_address == v4.private_address:
            keys.append(("public", v4.public_address))
    if device.ipv6_address:
        subnet = ipaddress.IPv6Network((device.ipv6_address, 64), strict=False)
        keys.append(("ipv6", str(subnet)))
    if device.phone_number:
        keys.append(("phone", device.phone_number))
    return keys
