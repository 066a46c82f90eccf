"""Client of /simulator/…: lets a test or an example move devices, revoke sessions and go forward in time, in another process too."""

from __future__ import annotations

import ssl
from typing import Any, Self
from uuid import UUID

import httpx

from cellwright.errors import QosError
from cellwright.qos.forms import Device


class Remote:
    """Speaks to one simulator with its control token."""

    def __init__(self, url: str, control_token: str) -> None:
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {control_token}"}
        # no TLS to a simulator, which serves this machine only: no certificates are loaded
        plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._http = httpx.Client(headers=headers, timeout=10, trust_env=False, verify=plain)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def all(self) -> dict[str, Any]:
        """Cells, zones, devices, sessions, links and the time."""
        found: dict[str, Any] = self._send("GET", "")
        return found

    def put_device(self, name: str, identifiers: Device, longitude: float = 0.0, latitude: float = 0.0) -> None:
        """Make a device known, at a place."""
        self._send("PUT", f"/devices/{name}", {"identifiers": identifiers.wire(), "longitude": longitude, "latitude": latitude})

    def move(self, name: str, longitude: float, latitude: float) -> None:
        """Put a device somewhere else; a session that its new cell has no room for ends."""
        self._send("PUT", f"/devices/{name}/location", {"longitude": longitude, "latitude": latitude})

    def cut(self, name: str) -> int:
        """Break a device's connections; how many."""
        return int(self._send("POST", f"/devices/{name}/cut", {})["connections"])

    def put_zone(self, id: UUID | str, name: str, longitude: float = 0.0, latitude: float = 0.0) -> None:
        """Make an edge zone known."""
        self._send("PUT", f"/zones/{id}", {"name": name, "longitude": longitude, "latitude": latitude})

    def put_cell(self, name: str, **cell: Any) -> None:
        """Make a cell known, or change one; see `options.Cell`."""
        self._send("PUT", f"/cells/{name}", cell)

    def behave(self, **behaviour: Any) -> None:
        """Change how the network decides; see `options.Behaviour`."""
        self._send("PUT", "/behaviour", behaviour)

    def token(self, client: str = "client", *, device: str | None = None) -> str:
        """A token of an API consumer; with `device`, a three-legged one."""
        return str(self._send("POST", "/tokens", {"client": client} | ({"device": device} if device else {}))["token"])

    def fail(self, operation: str, **fault: Any) -> None:
        """Let an operation (its name in the standard) fail: status, retry_after_s, lose_answer, times."""
        self._send("POST", "/faults", {"operation": operation, **fault})

    def link(self, host: str, port: int, device: str | None = None) -> tuple[str, int]:
        """An entrance that leads through the network to an edge; where it is."""
        found = self._send("POST", "/links", {"host": host, "port": port} | ({"device": device} if device else {}))
        return str(found["host"]), int(found["port"])

    def advance(self, seconds: float) -> float:
        """Go forward in time; the new time."""
        return float(self._send("POST", "/clock", {"seconds": seconds})["now_s"])

    def revoke(self, session_id: UUID | str) -> None:
        """The network ends a session."""
        self._send("POST", f"/sessions/{session_id}/revoke", {})

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        try:
            answer = self._http.request(method, f"{self.url}/simulator{path}", json=body)
        except httpx.HTTPError as error:
            raise QosError(
                f"the simulator {self.url} cannot be reached ({error}); is `cellwright network serve` running?"
            ) from error
        if not answer.is_success:
            raise QosError(f"the simulator refused {method} {path}: {answer.text[:300]}")
        return answer.json() if answer.content else None
