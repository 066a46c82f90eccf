"""What a SuperNode knows of itself, and what others must know of it.

node.json        its settings; written on its own machine and read by no other
admission.json   its public keys; carried to the SuperLink's machine, and to other owners where sums are sealed
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from cellwright.errors import FederationError
from cellwright.federation.contract import Spec
from cellwright.federation.management.records import Name
from cellwright.files import write_text
from cellwright.params import Energy

FILE, ADMISSION = "node.json", "admission.json"


class NodeSettings(Spec):
    """One data owner's node."""

    owner: Name
    panel: str  # folder of its panel
    signing: str  # file of its Ed25519 key
    coordinator: str  # the coordinator's Ed25519 public key, hex
    peers: dict[str, str] = Field(default_factory=dict)  # other owners' Ed25519 public keys, hex, for sealed sums
    energy: Energy | None = None  # how its energy is told; None: it is not
    exogenous: tuple[str, ...] = ()  # files of series joined by time that a task may have it read


class Admission(Spec):
    """A data owner's public keys."""

    owner: Name
    supernode: str  # EC, PEM: what its SuperNode signs calls to the SuperLink with
    signing: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # Ed25519, hex: what it signs messages with


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


def admission(path: Path) -> Admission:
    """What an owner shows to be admitted.

    Raises:
        FederationError: it cannot be read.
    """
    try:
        return Admission.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise FederationError(
            f"cannot read {path} ({error}); take the {ADMISSION} that `cellwright federate node` made"
        ) from error
