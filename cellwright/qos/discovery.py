"""Client of CAMARA Simple Edge Discovery 2.0.1: the edge cloud zone with the shortest network path to a device."""

from __future__ import annotations

from pydantic import TypeAdapter

from cellwright.qos.forms import ClosestTo, Device, EdgeZone
from cellwright.qos.transport import Retries, Token, Transport, understood

PATH = "/simple-edge-discovery/v2"
_ZONE = TypeAdapter(EdgeZone)


class EdgeDiscovery:
    """Asks one network. The zone's address is not part of the answer: whoever placed an edge there knows it (the hub, by zone id)."""

    def __init__(self, root: str, token: Token, *, transport: Transport | None = None, retries: Retries | None = None) -> None:
        self._api = transport or Transport(root, token, retries=retries)

    def close(self) -> None:
        """Close the connections."""
        self._api.close()

    def closest(self, device: Device | None = None) -> EdgeZone:
        """The closest zone. `None`: to the device that the token stands for.

        Raises:
            Denied: 404 where the network does not know the device, or has no edge zone.
            Unreachable: no answer.
        """
        found = self._api.send("POST", f"{PATH}/retrieve-closest-edge-cloud-zone", ClosestTo(device=device).wire())
        return understood(_ZONE, found, "Simple Edge Discovery 2.0.1")
