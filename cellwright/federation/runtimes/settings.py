"""What a SuperNode knows of itself: `node.json` in its folder, written on its own machine and read by no other."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError

from cellwright.errors import FederationError
from cellwright.federation.contract import Spec
from cellwright.federation.management.records import Name
from cellwright.files import write_text
from cellwright.params import Energy

FILE = "node.json"


class NodeSettings(Spec):
    """One data owner's node."""

    owner: Name
    panel: str  # folder of its panel
    signing: str  # file of its Ed25519 key
    coordinator: str  # the coordinator's Ed25519 public key, hex
    peers: dict[str, str] = Field(default_factory=dict)  # other owners' Ed25519 public keys, hex, for sealed sums
    energy: Energy | None = None  # how its energy is told; None: it is not
    exogenous: tuple[str, ...] = ()  # files of series joined by time that a task may have it read


def write(folder: Path, settings: NodeSettings) -> None:
    """Keep a node's settings in its folder."""
    write_text(folder / FILE, settings.model_dump_json(indent=2) + "\n")


def read(folder: Path) -> NodeSettings:
    """A node's settings.

    Raises:
        FederationError: they are missing or cannot be read.
    """
    path = folder / FILE
    try:
        return NodeSettings.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise FederationError(
            f"cannot read the node's settings {path} ({error}); start the node with `cellwright federate node`"
        ) from error
