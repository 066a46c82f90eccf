"""The deployed runtime: Flower's SuperLink and a SuperNode for each data owner, as processes, over TLS.

A SuperNode joins with an EC key that was registered before (SuperNode authentication); everything it needs beyond that key, the CA's
certificate and its own panel comes with the messages. Nothing is downloaded: the apps are those of the installed package.
"""

from __future__ import annotations

import ipaddress
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from cellwright import __version__
from cellwright.errors import CellwrightError, FederationError, UnknownName, WrongUse
from cellwright.federation.runtimes import certificates
from cellwright.federation.runtimes.control import Control, write_app
from cellwright.federation.runtimes.door import Door
from cellwright.federation.runtimes.servers import (
    LOOPBACK,
    Files,
    Process,
    free_port,
    node_keys,
    open_folder,
    signing_key,
    start_superlink,
    start_supernode,
)
from cellwright.federation.runtimes.settings import ADMISSION, Admission, NodeSettings, admission
from cellwright.federation.runtimes.submitting import CLIENT, SERVER, end_earlier, run
from cellwright.files import write_text
from cellwright.params import Energy

__all__ = ["Deployed", "Files", "admit", "end_earlier", "joined", "node_keys", "run", "up"]

_START_S = 60.0

log = logging.getLogger(__name__)


@dataclass
class Deployed:
    """A SuperLink and its SuperNodes on this machine."""

    address: str
    files: Files
    superlink: Process
    owners: Mapping[str, NodeSettings]
    supernodes: dict[str, Process] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)  # SuperNodes that ended and were not started again

    def control(self) -> Control:
        """A connection to the SuperLink."""
        return Control(self.address, self.files.ca)

    @property
    def coordinator(self) -> str:
        """The coordinator's Ed25519 public key, hex; owners elsewhere must be told it."""
        return signing_key(self.files.coordinator_key).public

    def start(self, owner: str) -> None:
        """Start an owner's SuperNode, again or for the first time.

        Raises:
            UnknownName: no such owner.
        """
        self._known(owner)
        self.supernodes[owner] = start_supernode(self.files, self.owners[owner], self.address, ca=self.files.ca)
        self.ended.discard(owner)

    def kill(self, owner: str) -> None:
        """End an owner's SuperNode as a power cut would; start it again with `start`."""
        self._known(owner)
        self.supernodes[owner].kill()

    def check(self) -> None:
        """Look after the processes. A SuperNode that ended is the owner's affair: the federation goes on without it, and says so.

        Raises:
            FederationError: the SuperLink has ended.
        """
        self.superlink.check()
        for owner in sorted(set(self.supernodes) - self.ended):
            try:
                self.supernodes[owner].check()
            except FederationError as error:
                self.ended.add(owner)
                log.warning("%s", error)

    def wait_online(self, owners: Sequence[str], *, seconds: float = _START_S) -> None:
        """Wait until the SuperNodes of these owners are connected.

        Raises:
            FederationError: one ended, or is not connected in time.
        """
        end = time.monotonic() + seconds
        with self.control() as control:
            while missing := sorted(set(owners) - set(control.online())):
                for process in (self.superlink, *(self.supernodes[owner] for owner in missing)):
                    process.check()
                if time.monotonic() > end:
                    raise FederationError(
                        f"the SuperNode of '{missing[0]}' is not connected after {seconds:g} s; see {self.files.log(missing[0])}"
                    )
                time.sleep(0.3)

    def run(self, folder: Path, *, request: str, seconds: float) -> None:
        """See `run`."""
        run(self.files, self.address, folder, request=request, seconds=seconds, on_look=self.check)

    def stop(self) -> None:
        """Stop all of it; nothing is left running."""
        for process in (*self.supernodes.values(), self.superlink):
            process.stop()

    def _known(self, owner: str) -> None:
        if owner not in self.owners:
            raise UnknownName("owner", owner, self.owners)


@contextmanager
def up(
    owners: Mapping[str, Path],
    root: Path,
    *,
    address: str | None = None,
    door: str | None = None,
    hosts: Sequence[str] = (),
    energy: Energy | None = None,
    app: Path | None = None,
) -> Iterator[Deployed]:
    """A SuperLink and one SuperNode a data owner, on this machine, until the block ends.

    Args:
        owners: panel folder of each owner.
        root: where certificates, keys, node states and logs are kept (`.cellwright/federation`).
        address: host:port of loopback that the SuperLink listens on; none: a free port.
        door: host:port at which SuperNodes of other machines may join (door.py); none: they may not.
        hosts: further names and addresses by which other machines know this one.
        energy: how the nodes tell their energy; none: they do not.
        app: folder of another Flower app than this package's own.

    Raises:
        WrongUse: the address is not of loopback.
        FederationError: a program could not be started, or a SuperNode could not join.
        WorkspaceError: the port is taken, or `root` is not writable.
    """
    files, at = Files(root.resolve()), address or f"{LOOPBACK}:{free_port()}"
    _check_loopback(at)
    prepare(files, at, hosts=(*hosts, *_named(door)), app=app)
    settings = settings_for(files, owners, energy)
    deployed = Deployed(at, files, start_superlink(files, at), settings)
    try:
        _await_superlink(deployed)
        _admit_known(deployed)
        for owner in owners:
            deployed.start(owner)
        deployed.wait_online(list(owners))
        with _door(files, door, at):
            yield deployed
    finally:
        deployed.stop()


def settings_for(files: Files, owners: Mapping[str, Path], energy: Energy | None = None) -> dict[str, NodeSettings]:
    """The settings of nodes on this machine, each with a signing key of its own and the public keys of the others."""
    keys = {owner: node_keys(files, owner).signing for owner in owners}
    coordinator = signing_key(files.coordinator_key).public
    return {
        owner: NodeSettings(
            owner=owner,
            panel=str(panel.resolve()),
            signing=str(files.node(owner) / "signing.pem"),
            coordinator=coordinator,
            peers={name: key for name, key in keys.items() if name != owner},
            energy=energy,
        )
        for owner, panel in owners.items()
    }


@contextmanager
def joined(
    files: Files,
    owner: str,
    panel: Path,
    address: str,
    *,
    ca: Path,
    coordinator: str,
    peers: Mapping[str, str] | None = None,
    energy: Energy | None = None,
) -> Iterator[Process]:
    """One SuperNode on this machine that joins a SuperLink elsewhere, until the block ends.

    Raises:
        FederationError: its settings cannot be used.
    """
    node_keys(files, owner)
    signing = files.node(owner) / "signing.pem"
    settings = NodeSettings(
        owner=owner,
        panel=str(panel.resolve()),
        signing=str(signing),
        coordinator=coordinator,
        peers=dict(peers or {}),
        energy=energy,
    )
    process = start_supernode(files, settings, address, ca=ca.resolve())
    try:
        yield process
    finally:
        process.stop()


def prepare(files: Files, address: str, *, hosts: Sequence[str] = (), app: Path | None = None) -> None:
    """Certificates, valid for the address and for `hosts`, the coordinator's key and the app's folder."""
    open_folder(files)
    certificates.server(files.root, sorted({LOOPBACK, "localhost", *hosts, *_named(address)}))
    signing_key(files.coordinator_key)
    target = write_app(files.app, server=SERVER, client=CLIENT, version=__version__)
    if app is not None:
        for path in app.iterdir():
            (target / path.name).write_bytes(path.read_bytes())


def admit(files: Files, address: str, shown: Admission) -> None:
    """Let an owner's SuperNode join, now and whenever a SuperLink is started here; removing its folder ends that.

    Raises:
        FederationError: the SuperLink cannot be reached; or the owner was admitted with other keys before.
    """
    path = files.node(shown.owner) / ADMISSION
    if path.is_file() and admission(path) != shown:
        raise FederationError(
            f"'{shown.owner}' was admitted with other keys; if it really has new ones, remove {path.parent} first"
        )
    with Control(address, files.ca) as control:
        control.register(shown.supernode.encode(), shown.owner)
    write_text(path, shown.model_dump_json(indent=2) + "\n")


def _admit_known(deployed: Deployed) -> None:
    """A SuperLink that was started anew knows nobody."""
    with deployed.control() as control:
        for path in sorted((deployed.files.root / "nodes").glob(f"*/{ADMISSION}")):
            known = admission(path)
            control.register(known.supernode.encode(), known.owner)


def _named(address: str | None) -> list[str]:
    """The host of an address, unless it means all of this machine's."""
    host = _host(address or "")
    try:
        return [] if ipaddress.ip_address(host).is_unspecified else [host]
    except ValueError:
        return [host] if host else []


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _check_loopback(address: str) -> None:
    host = _host(address)
    try:
        inside = ipaddress.ip_address(host).is_loopback
    except ValueError:
        inside = host == "localhost"
    if not inside or not address.rpartition(":")[2].isdecimal():
        raise WrongUse(
            f"a SuperLink listens on loopback, such as {LOOPBACK}:9093, found '{address}': whoever reaches it could run apps at every "
            "owner; let other machines in with --door"
        )


def _door(files: Files, door: str | None, superlink: str) -> AbstractContextManager[object]:
    """Open the door, if one is asked for."""
    if door is None:
        return nullcontext()
    return Door(door, superlink, ca=files.ca, certificate=files.root / "superlink.pem", key=files.root / "superlink.key")


def _await_superlink(deployed: Deployed) -> None:
    end = time.monotonic() + _START_S
    while True:
        deployed.check()
        try:
            with deployed.control() as control:
                control.online()
        except CellwrightError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
        else:
            return
