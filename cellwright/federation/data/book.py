"""Metadata as they are kept: sealed, every version of every owner, and made anew only where the data changed (M.3387 10.1, 10.2)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from cellwright.errors import FederationError
from cellwright.federation.contract import Parcel
from cellwright.federation.data.metadata import Disclosure, Metadata, describe, fingerprint, metadata_of
from cellwright.federation.data.sealed import SealedStore
from cellwright.panel import Panel

_NAME = "metadata."  # in the store; the owner's name follows


class MetadataBook:
    """One at an owner, for its own; one at the coordinator or the FMLMS, for everyone's."""

    def __init__(self, store: SealedStore) -> None:
        self.store = store

    def update(self, panel: Panel, owner: str, disclosure: Disclosure, *, rng: np.random.Generator | None = None) -> Metadata:
        """The metadata of an owner's panel as it is now; a new version only where the data or the disclosure changed.

        So asking again spends no privacy budget, and a panel that grew is described anew.
        """
        source, told = fingerprint(panel), disclosure.model_dump_json()
        newest = self._newest(owner)
        if newest is not None and newest["source"] == source and newest["disclosure"] == told:
            return Metadata.model_validate(newest["metadata"])
        previous = "" if newest is None else str(newest["metadata"]["version"])
        made = describe(panel, owner, disclosure, previous=previous, rng=rng)
        self._keep(made, source, told)
        return made

    def take(self, parcel: Parcel, *, sender: str) -> Metadata:
        """Keep the metadata that an owner sent, unless they are those kept already.

        Raises:
            Refused: of another form, altered, or of another owner than `sender`.
        """
        found = metadata_of(parcel, sender=sender)
        newest = self._newest(sender)
        if newest is None or newest["metadata"]["version"] != found.version:
            self._keep(found, "", "")
        return found

    def newest(self, owner: str) -> Metadata | None:
        """What is known of an owner's data; None: nothing."""
        kept = self._newest(owner)
        return None if kept is None else Metadata.model_validate(kept["metadata"])

    def history(self, owner: str) -> tuple[Metadata, ...]:
        """All versions that are kept, oldest first."""
        name = _NAME + owner
        return tuple(Metadata.model_validate(json.loads(self.store.get(name, v))["metadata"]) for v in self.store.versions(name))

    def owners(self) -> tuple[str, ...]:
        """Of whom anything is known, sorted."""
        return tuple(name.removeprefix(_NAME) for name in self.store.list() if name.startswith(_NAME))

    def spent_epsilon(self, owner: str) -> float:
        """Privacy budget that all versions of the quantiles together have spent, for one measured value."""
        return sum(version.epsilon or 0.0 for version in self.history(owner))

    def _newest(self, owner: str) -> dict[str, Any] | None:
        name = _NAME + owner
        if not self.store.versions(name):
            return None
        kept = json.loads(self.store.get(name))
        if not isinstance(kept, dict) or not {"source", "disclosure", "metadata"} <= kept.keys():
            raise FederationError(f"'{name}' in {self.store.folder} is not kept metadata; delete it and they are made anew")
        return kept

    def _keep(self, metadata: Metadata, source: str, disclosure: str) -> None:
        kept = {"source": source, "disclosure": disclosure, "metadata": metadata.model_dump(mode="json")}
        self.store.put(_NAME + metadata.owner, json.dumps(kept).encode())
