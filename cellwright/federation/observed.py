"""The rounds that contributions are measured from, kept on disk beside the checkpoint: an interrupted training measures all of them.

observed/rounds.json            how many rounds were seen, and which are kept
observed/<round>.safetensors    the weights before a round, the rule's state, and every owner's update
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellwright.errors import FederationError
from cellwright.federation.contract import Arrays, Update, Usage
from cellwright.federation.data.at_rest import AtRest, tensors
from cellwright.files import write_text

if TYPE_CHECKING:
    from cellwright.federation.gain import Kept

_INDEX = "rounds.json"


class Shelf:
    """A folder of observed rounds."""

    def __init__(self, folder: Path, at_rest: AtRest | None = None) -> None:
        """`at_rest`: how the rounds lie on the disk; None: open."""
        self.folder, self._at_rest = folder, at_rest or AtRest()

    def clear(self) -> None:
        """A training that begins has seen nothing."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def index(self) -> dict[str, Any]:
        """What `keep` was told last; empty at the beginning."""
        path = self.folder / _INDEX
        found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
        return found

    def keep(self, kept: list[Kept], index: dict[str, Any]) -> None:
        """Write the rounds that are new, then the index, then let go of those that are not in it any more."""
        for one in kept:
            if not self._path(one.round).is_file():
                self._at_rest.write(self._path(one.round), _packed(one))
        write_text(self.folder / _INDEX, json.dumps({**index, "rounds": [one.round for one in kept]}))
        for path in self.folder.glob("*.safetensors"):
            if path not in {self._path(one.round) for one in kept}:
                path.unlink()

    def kept(self) -> list[Kept]:
        """The rounds of the index.

        Raises:
            FederationError: a file is missing or damaged.
        """
        return [_unpacked(self._path(number), self._at_rest) for number in self.index().get("rounds", [])]

    def _path(self, round_: int) -> Path:
        return self.folder / f"{round_:06}.safetensors"


def _packed(one: Kept) -> bytes:
    from safetensors.numpy import save

    groups: dict[str, Arrays] = {"current": one.current, "rule": one.rule}
    for i, update in enumerate(one.updates):
        groups |= {f"delta {i}": update.delta, f"extra {i}": update.extra}
    told = [{**vars(u), "usage": asdict(u.usage), "delta": None, "extra": None, "metrics": dict(u.metrics)} for u in one.updates]
    header = {"round": str(one.round), "updates": json.dumps(told), "names": json.dumps({g: list(a) for g, a in groups.items()})}
    whole = {f"{g}/{name}": np.array(a, order="C", copy=None) for g, arrays in groups.items() for name, a in arrays.items()}
    return save(whole, header)


def _unpacked(path: Path, at_rest: AtRest) -> Kept:
    from safetensors import SafetensorError

    from cellwright.federation.gain import Kept

    try:
        header, found = tensors(at_rest.read(path))
        names = json.loads(header["names"])
        groups = {group: {name: found[f"{group}/{name}"] for name in of} for group, of in names.items()}
        told = json.loads(header["updates"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise FederationError(
            f"{path}, which contributions are measured from, is missing or damaged ({error}); set federation.contribution to false"
        ) from error
    updates = tuple(
        Update(**{**u, "usage": Usage(**u["usage"]), "delta": groups[f"delta {i}"], "extra": groups[f"extra {i}"]})
        for i, u in enumerate(told)
    )
    return Kept(int(header["round"]), groups["current"], updates, groups["rule"])
