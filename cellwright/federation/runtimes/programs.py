"""The two apps that a SuperLink and its SuperNodes run: `client` at every data owner, `server` beside the SuperLink."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cellwright.federation.contract import Node, Value
from cellwright.federation.runtimes.apps import client_app, server_app
from cellwright.federation.runtimes.channel import FlowerChannel
from cellwright.federation.runtimes.memory import FolderMemory
from cellwright.federation.runtimes.settings import read


def owner(context: Any) -> Node:
    """The data owner whose SuperNode this is, from the settings in its folder.

    Raises:
        FederationError: settings, keys or panel are missing or damaged.
    """
    from cellwright.federation.audit.signing import Signer
    from cellwright.federation.owner import DataOwner
    from cellwright.federation.owner_kit import OwnerKit

    settings = read(Path(str(context.node_config["node"])))
    kit = OwnerKit(
        signer=Signer.from_file(Path(settings.signing)),
        coordinator_key=settings.coordinator,
        peers=settings.peers,
        energy=settings.energy,
        exogenous=settings.exogenous,
        request=str(context.run_config.get("request", "")) or None,  # whose memory this run is given
    )
    return DataOwner(settings.owner, Path(settings.panel), kit)


def coordinator(channel: FlowerChannel, config: Mapping[str, Value]) -> None:
    """Run the job in the folder that the run's configuration names; between rounds the FMLMS is asked, where one manages it."""
    from cellwright.federation.runtimes.jobs import coordinate, managed
    from cellwright.federation.runtimes.pulse import alone

    folder = Path(str(config["folder"]))
    with alone(folder):
        coordinate(channel, folder, hooks=managed(folder))


client = client_app(owner, FolderMemory())
server = server_app(coordinator)
