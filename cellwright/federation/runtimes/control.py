"""What a SuperLink is told from outside: which SuperNodes may join, which app to run; over TLS."""

from __future__ import annotations

import hashlib
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import httpx
from flwr.cli.build import build_fab_from_disk
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import ListNodesRequest, ListRunsRequest, RegisterNodeRequest, StartRunRequest, StopRunRequest
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

from cellwright.errors import FederationError, Refused
from cellwright.federation.contract import Value

APP = """\
[project]
name = "cellwright-federation"
version = "{version}"
description = "The apps of Cellwright's federations; the code is the installed package's."
license = "Apache-2.0"

[tool.flwr.app]
publisher = "cellwright"

[tool.flwr.app.components]
serverapp = "{server}"
clientapp = "{client}"

[tool.flwr.app.config]
folder = ""
request = ""
"""
_POLL_S = 0.3


@dataclass(frozen=True)
class RunState:
    """How a run of an app stands."""

    status: Literal["pending", "starting", "running", "finished"]
    outcome: str  # of a finished one: "completed", "failed", "stopped"
    details: str


class Control:
    """A SuperLink's Control API at `address` (host:port), whose certificate the CA in `ca` vouches for."""

    def __init__(self, address: str, ca: Path) -> None:
        self.address = address
        try:
            certificate = ca.read_bytes()
        except OSError as error:
            raise FederationError(
                f"cannot read the CA's certificate {ca}: {error.strerror}; take the SuperLink's ca.pem there"
            ) from error
        version = RuntimeVersionHttpInterceptor(component_name="cellwright")
        try:
            self._client = ControlHttpClient.from_server_address(address, False, certificate, [version])
        except (ssl.SSLError, UnicodeDecodeError) as error:
            raise FederationError(f"{ca} is no CA's certificate in PEM ({error}); take the SuperLink's ca.pem") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._client.close()

    def register(self, public_key: bytes, name: str) -> None:
        """Let the SuperNode with this public key (PEM) join; one that may already is fine.

        Raises:
            FederationError: the SuperLink cannot be reached.
            Refused: it does not take the key.
        """
        if public_key.strip() not in {bytes(node.public_key).strip() for node in self._nodes()}:
            self._call(lambda: self._client.RegisterNode(RegisterNodeRequest(public_key=public_key, name=name)))

    def online(self) -> dict[str, int]:
        """Names of the SuperNodes that are connected, and their numbers."""
        return {node.name: node.node_id for node in self._nodes() if node.status == "online"}

    def submit(self, app: Path, config: Mapping[str, Value]) -> int:
        """Start a run of the app in a folder; returns its number.

        Raises:
            FederationError: the SuperLink cannot be reached, or did not start it.
        """
        content = build_fab_from_disk(app)
        fab = fab_to_proto(Fab(hashlib.sha256(content).hexdigest(), content, {}))
        asked = StartRunRequest(fab=fab, override_config=user_config_to_proto(dict(config)))
        started = self._call(lambda: self._client.StartRun(asked))
        if not started.HasField("run_id"):
            raise FederationError(f"the SuperLink at {self.address} did not start the run; see its log")
        return int(started.run_id)

    def state(self, run: int) -> RunState:
        """How a run stands.

        Raises:
            FederationError: the SuperLink cannot be reached, or knows no such run (it was restarted since).
        """
        runs = self._call(lambda: self._client.ListRuns(ListRunsRequest(run_id=run))).run_dict
        if run not in runs:
            raise FederationError(
                f"the SuperLink at {self.address} knows no run {run}; was it restarted? Start the run again: it resumes"
            )
        status = runs[run].status
        return RunState(status.status, status.sub_status, status.details)

    def wait(self, run: int, *, until: float, on_look: Callable[[], None] = lambda: None) -> None:
        """Wait until a run has completed; `until` on time.monotonic's clock, `on_look` is called every now and then.

        Raises:
            FederationError: it failed, was stopped, or has not ended in time.
        """
        while (state := self.state(run)).status != "finished":
            on_look()
            if time.monotonic() > until:
                raise FederationError(
                    f"run {run} had not ended in time and was stopped; raise the time it is given, or ask for fewer rounds"
                )
            time.sleep(_POLL_S)
        if state.outcome != "completed":
            raise FederationError(f"run {run} {state.outcome}: {state.details or 'it did not say why'}")

    def stop(self, run: int) -> None:
        """Stop a run, unless it has ended or the SuperLink is gone."""
        with suppress(FederationError):
            self._call(lambda: self._client.StopRun(StopRunRequest(run_id=run)))

    def _nodes(self) -> list[Any]:
        return list(self._call(lambda: self._client.ListNodes(ListNodesRequest())).nodes_info)

    def _call(self, ask: Callable[[], Any]) -> Any:
        """One request; what can go wrong with it, in words."""
        try:
            return ask()
        except httpx.HTTPStatusError as error:
            said = error.response.text.strip()[:300]
            raise Refused(f"the SuperLink at {self.address} refused: {error.response.status_code} {said}") from error
        except httpx.TransportError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise FederationError(
                    f"the SuperLink at {self.address} does not show a certificate of this federation's CA ({error}); "
                    "take its ca.pem, or connect to the address that its certificate is for"
                ) from error
            raise FederationError(
                f"no SuperLink answers at {self.address} ({str(error) or type(error).__name__}); start one with "
                "`cellwright federate up`, or set federation.address"
            ) from error


def write_app(folder: Path, *, server: str, client: str, version: str) -> Path:
    """A folder that Flower runs as an app: its components are names in packages that every machine has installed."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(APP.format(server=server, client=client, version=version))
    return folder
