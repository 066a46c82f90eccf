"""Client of CAMARA QoS Profiles 1.1.0."""

from __future__ import annotations

from urllib.parse import quote

from pydantic import TypeAdapter

from cellwright.qos.forms import Device
from cellwright.qos.profile import ProfilesOf, ProfileStatus, QosProfile
from cellwright.qos.transport import Retries, Token, Transport, understood

PATH = "/qos-profiles/v1"
_STANDARD = "QoS Profiles 1.1.0"
_PROFILE, _PROFILES = TypeAdapter(QosProfile), TypeAdapter(tuple[QosProfile, ...])


class ProfilesClient:
    """Profiles of one network. A `transport` may be shared with other clients."""

    def __init__(self, root: str, token: Token, *, transport: Transport | None = None, retries: Retries | None = None) -> None:
        self._api = transport or Transport(root, token, retries=retries)

    def close(self) -> None:
        """Close the connections."""
        self._api.close()

    def retrieve(
        self, device: Device | None = None, *, name: str | None = None, status: ProfileStatus | None = None
    ) -> tuple[QosProfile, ...]:
        """The profiles that the network offers (to a device). Raises Denied, Unreachable."""
        body = ProfilesOf(device=device, name=name, status=status).wire()
        return understood(_PROFILES, self._api.send("POST", f"{PATH}/retrieve-qos-profiles", body), _STANDARD)

    def get(self, name: str) -> QosProfile:
        """One profile by its name. Raises Denied (404: there is none), Unreachable."""
        return understood(_PROFILE, self._api.send("GET", f"{PATH}/qos-profiles/{quote(name, safe='')}"), _STANDARD)
