"""The FMLMS behind its HTTP API, over TLS on loopback: interface 1 for the client, interface 2 for all nodes."""

from __future__ import annotations

import base64
import hashlib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from cellwright.federation.data.keyring import FileKey
from cellwright.federation.data.vault import Vault
from cellwright.federation.management.records import NodeProperties, Plan
from cellwright.federation.management.serve import in_thread
from cellwright.federation.management.service import Fmlms
from cellwright.federation.management.tokens import Ceiling
from cellwright.federation.runtimes.certificates import authority, server

CLIENT = "road-authority"
HOST = "127.0.0.1"


class Interfaces:
    """One HTTP client that speaks for everyone, each with the token of its own."""

    def __init__(self, fmlms: Fmlms, http: httpx.Client) -> None:
        self._fmlms, self._http = fmlms, http
        self._tokens = {CLIENT: fmlms.new_token("client", CLIENT)}
        self.calls = 0

    def enrol(self, node: NodeProperties) -> None:
        """The operator gives a node its token, which says what it may claim at most; with it the node registers itself."""
        ceiling = Ceiling(roles=node.roles, security=node.security)
        self._tokens[node.name] = self._fmlms.new_token("node", node.name, ceiling=ceiling)
        self.send(node.name, "POST", "/v1/nodes", node.model_dump(mode="json"))

    def send(self, who: str, method: str, path: str, content: Any = None, **query: str) -> Any:
        """Ask for `who`; returns the answer's JSON."""
        return self._answer(who, method, path, content, query).json()

    def refused(self, who: str, method: str, path: str, **query: str) -> str:
        """Ask for what is not allowed; returns the reason, "" if it was allowed."""
        try:
            self.send(who, method, path, **query)
        except httpx.HTTPStatusError as error:
            return str(error.response.json()["detail"])
        return ""

    def model(self, who: str, path: str, **query: str) -> tuple[bytes, str]:
        """A model and its SHA-256, hex, which the answer states and its bytes must have."""
        answer = self._answer(who, "GET", path, None, query)
        stated = base64.b64decode(answer.headers["Repr-Digest"].removeprefix("sha-256=:").removesuffix(":")).hex()
        if stated != hashlib.sha256(answer.content).hexdigest():
            raise ValueError(f"{who} received a model that is not of its SHA-256 {stated}")
        return answer.content, stated

    def plan(self, node: str, request: str) -> Plan:
        """What the node must know for a request (I.3, step 3)."""
        return Plan.model_validate(self.send(node, "GET", f"/v1/nodes/{node}/plan", request=request))

    def _answer(self, who: str, method: str, path: str, content: Any, query: dict[str, str]) -> httpx.Response:
        self.calls += 1
        headers = {"Authorization": f"Bearer {self._tokens[who]}"}
        return self._http.request(method, path, json=content, params=query, headers=headers).raise_for_status()


@contextmanager
def management(folder: Path) -> Iterator[tuple[Fmlms, Interfaces]]:
    """An FMLMS with a database of its own, in which models and metadata lie encrypted, and its API."""
    folder.mkdir(parents=True, exist_ok=True)
    ca = authority(folder)
    certificate, key = server(folder, [HOST])
    with (
        Fmlms(f"sqlite:///{folder / 'fmlms.db'}", vault=Vault(FileKey(folder / "storage.key"))) as fmlms,
        in_thread(fmlms, HOST, certificate=certificate, key=key) as url,
        httpx.Client(base_url=url, verify=ssl.create_default_context(cafile=str(ca)), trust_env=False, timeout=60) as http,
    ):
        yield fmlms, Interfaces(fmlms, http)
