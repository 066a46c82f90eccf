"""What an edge shall hold, what it holds, and how the second becomes the first. All of it is on disk and survives a crash.

<store>/tenants/desired.json           the hub's last word
<store>/tenants/.staging/<digest>/     versions on their way

A version is brought beside what serves, verified, then made the latest by one replaced pointer; only then is the one before it
retired, once nobody fetches it any more. Nothing here speaks to the hub.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from cellwright.bundle import store
from cellwright.bundle.keys import parse_public
from cellwright.bundle.manifest import Manifest
from cellwright.edge.eviction import victims
from cellwright.edge.eviction._contract import Candidate
from cellwright.edge.patches import Patches
from cellwright.edge.pulling import Order
from cellwright.edge.shelves import Shelves
from cellwright.edge.uses import Key, Uses
from cellwright.edge.wants import Want, challenger_of, wants_of
from cellwright.errors import BundleError, WorkspaceError
from cellwright.files import write_text
from cellwright.hub.contract import Desired, DesiredModel, told
from cellwright.hub.grant import TakenBack

log = logging.getLogger(__name__)
_SPARE_BYTES = 32 << 20  # of the disk that is never filled
_NONE = TakenBack()


@dataclass(frozen=True)
class Keeping:
    """How much an edge keeps, and for how long."""

    disk_bytes: int = 20 * 10**9  # budget of all tenants' versions and patches
    policy: str = "popularity"  # of eviction
    linger_s: float = 30.0  # a version that is not wanted any more goes once nobody has used it for so long


@dataclass(frozen=True)
class Has:
    """A version that is held, verified."""

    key: Key
    digest: str
    bytes: int
    folder: Path


class Library:
    """The tenants' versions of one edge. Safe to use from several threads."""

    def __init__(self, shelves: Shelves, uses: Uses, keeping: Keeping) -> None:
        self.shelves, self.uses, self.keeping = shelves, uses, keeping
        self._path, self._staging = shelves.folder / "desired.json", shelves.folder / ".staging"
        self._lock = threading.RLock()
        self._reserved: dict[Key, int] = {}
        self.desired: Desired | None = None
        self._taken_back: dict[str, TakenBack] = {}
        self._wants: tuple[Desired | None, list[Want]] = (None, [])  # of the word that they follow from
        self._patches: Patches | None = None
        self._load()

    def _load(self) -> None:
        try:
            if self._path.is_file():
                desired = told(Desired, self._path.read_bytes())  # of a newer edge, perhaps
                parse_public(desired.hub_key.encode(), "the hub's key")
                self.shelves.believe_hub(desired.hub_key)
                self._follow(desired)
        except (ValueError, BundleError) as error:
            log.warning("%s is damaged (%s); no grant is believed until the hub answers again", self._path, error)
            self.shelves.doubt_hub()  # which grants were taken back is not known any more
        shutil.rmtree(self._staging, ignore_errors=True)  # of an earlier process; nobody knows what was cut off where

    def patch_with(self, patches: Patches) -> None:
        """Have patches made between versions; they share the disk budget."""
        self._patches = patches

    # what shall be

    def take(self, desired: Desired) -> None:
        """Remember the hub's word, and believe whom it believes.

        Raises:
            BundleError: the hub's key is none; nothing is changed.
            WorkspaceError: it cannot be written.
        """
        parse_public(desired.hub_key.encode(), "the hub's key")
        with self._lock:
            self._taken_back = _taken_back(desired)  # first, so that a full disk holds up no revocation
            write_text(self._path, desired.model_dump_json())
            self.shelves.believe_hub(desired.hub_key)
            for tenant in desired.tenants:
                self.shelves.believe(tenant.tenant, tenant.keys)
            self._follow(desired)
            self.shelves.refresh()

    def _follow(self, desired: Desired) -> None:
        self._taken_back, self.desired = _taken_back(desired), desired

    def taken_back(self, tenant: str) -> TakenBack:
        """Grants of a tenant that were taken back; known once a word of the hub's, since every request comes here."""
        return self._taken_back.get(tenant, _NONE)

    def speaks_of(self, tenant: str) -> bool:
        """Whether the hub's word speaks of a tenant. Of others it does not say which grants it took back either, so nobody is given
        what still lies here of them."""
        return self.desired is None or tenant in self._taken_back

    def wants(self) -> list[Want]:
        """What shall be held, the most urgent first. Computed once a word of the hub's: whoever asks for a version comes here."""
        state, (known, found) = self.desired, self._wants
        if state is known:
            return found
        models = [(t.tenant, m) for t in (state.tenants if state else ()) for m in t.models]
        every = [want for tenant, model in models for want in wants_of(tenant, model)]
        found = sorted(every, key=lambda w: (not w.pinned, -w.priority, not w.latest, w.bytes, w.key))
        self._wants = (state, found)
        return found

    def wanted(self, tenant: str, model: str, version: str) -> Want | None:
        """The version that shall be held, if it shall; "latest" works as a version."""
        same = (w for w in self.wants() if (w.key.tenant, w.key.model) == (tenant, model))
        return next((w for w in same if w.key.version == version or (version == "latest" and w.latest)), None)

    # what is

    def held(self) -> dict[Key, Has]:
        """What is held."""
        return {
            key: Has(key, shelved.manifest.digest, shelved.manifest.bytes, shelved.folder)
            for tenant, shelf in self.shelves
            for model, versions in shelf.snapshot.bundles.items()
            for version, shelved in versions.items()
            if (key := Key(tenant, model, version))
        }

    def lacking(self) -> list[Want]:
        """What shall be held and is not."""
        held = self.held()
        return [w for w in self.wants() if w.key not in held or held[w.key].digest != w.digest]

    def free_bytes(self) -> int:
        """Room that is left within the budget and on the disk; negative where there is less than none."""
        self.shelves.folder.mkdir(parents=True, exist_ok=True)
        used = (
            sum(h.bytes for h in self.held().values())
            + sum(self._reserved.values())
            + (self._patches.cached_bytes() if self._patches else 0)
        )
        on_disk = shutil.disk_usage(self.shelves.folder).free - _SPARE_BYTES - sum(self._reserved.values())
        return min(self.keeping.disk_bytes - used, on_disk)

    # from one to the other

    def reserve(self, want: Want, *, asked: bool) -> Order:
        """Make room for a version, by eviction if need be, and say where it goes.

        Args:
            asked: a device asks for it, so that others of its own priority may go for it; else only those of a lower one.

        Raises:
            WorkspaceError: there is no room; nothing was evicted.
        """
        with self._lock:
            needed = want.bytes - self.free_bytes()
            if needed > 0 and self._patches is not None:
                needed -= self._patches.trim(needed)
            if needed > 0:
                self._evict(want, needed, asked=asked)
            self._reserved[want.key] = want.bytes
            others = tuple(
                h.folder for h in self.held().values() if (h.key.tenant, h.key.model) == (want.key.tenant, want.key.model)
            )
            staging = self._staging / want.digest.removeprefix("sha256:")
            return Order(want.key, want.digest, self.shelves.trust_of(want.key.tenant), staging, others, want.bytes)

    def release(self, key: Key) -> None:
        """The version has come, or has not: its room is counted as what it is."""
        with self._lock:
            self._reserved.pop(key, None)

    def put(self, order: Order, manifest: Manifest) -> None:
        """Bring a pulled version onto its shelf, and let the model's pointers say what the hub says. Raises BundleError."""
        with self._lock:
            self._remove_damaged(order.key)
            folder = self.shelves.place_of(order.key.tenant)
            store.place(folder, order.staging, manifest, activate=self._is_latest(order.key), move=True)
            shutil.rmtree(order.staging, ignore_errors=True)
            self.shelves.refresh()
            self.settle()

    def settle(self) -> bool:
        """Let pointers and trials follow the hub's word, and retire what is not wanted; returns whether something is still in use."""
        with self._lock:
            held = self.held()
            for tenant in self.desired.tenants if self.desired else ():
                for model in tenant.models:
                    self._point(tenant.tenant, model, held)
            self.shelves.refresh()  # so that whoever asks for the latest is told of the new one before the old one goes
            waiting = self._retire(held)
            self.shelves.refresh()
            self._drop_empty()
            if self._patches is not None:
                for name, shelf in self.shelves:
                    self._patches.consider(name, shelf.snapshot)
            return waiting

    def damaged(self) -> list[str]:
        """Versions that lie here and do not verify; they are removed, and come again."""
        with self._lock:
            found = []
            for tenant, shelf in self.shelves:
                for what, reason in shelf.snapshot.refused.items():
                    name, _, version = what.rpartition(" ")
                    if name and version not in shelf.snapshot.bundles.get(name, {}):
                        log.error("%s of %s is removed and fetched again: %s", what, tenant, reason)
                        shutil.rmtree(self.shelves.place_of(tenant) / name / version, ignore_errors=True)
                        found.append(what)
            if found:
                self.shelves.refresh()
            return found

    def _evict(self, want: Want, needed: int, *, asked: bool) -> None:
        """Raises WorkspaceError."""
        kept = {w.key: w for w in self.wants()}
        candidates = [
            Candidate(has.key, has.bytes, self.uses.popularity(has.key), kept[has.key].priority)
            for has in self.held().values()
            if has.key in kept and self._may_go(kept[has.key], want, asked=asked)
        ]
        chosen = victims(self.keeping.policy, candidates, needed)
        if chosen is None:
            raise WorkspaceError(
                f"no room for {want.key}: it has {want.bytes} bytes, {needed} more than are free of the budget of "
                f"{self.keeping.disk_bytes}; raise --disk-budget, or place fewer models here"
            )
        for victim in chosen:
            log.info("evicted for %s: %s, %d bytes", want.key, victim.key, victim.bytes)
            self._remove(victim.key)
        self.shelves.refresh()

    def _may_go(self, other: Want, want: Want, *, asked: bool) -> bool:
        if other.pinned or other.tried or other.key == want.key or self.uses.idle_s(other.key) == 0:
            return False
        return asked or want.pinned or other.priority < want.priority

    def _is_latest(self, key: Key) -> bool:
        want = self.wanted(key.tenant, key.model, key.version)
        return want is not None and want.latest

    def _point(self, tenant: str, model: DesiredModel, held: dict[Key, Has]) -> None:
        folder, latest = self.shelves.place_of(tenant), held.get(Key(tenant, model.name, model.latest))
        if latest is None:
            return  # what serves goes on serving until it is here
        tried, now = _trial(folder, model.name), store.pointer(folder, model.name)
        wanted = _wanted_trial(tenant, model, held, tried)
        if now is None or now.version != model.latest or (wanted is None and tried is not None):
            store.switch(folder, model.name, model.latest, warm=wanted)
        elif wanted is not None and wanted != tried:
            store.try_out(folder, model.name, wanted)

    def _retire(self, held: dict[Key, Has]) -> bool:
        """Remove what is not wanted: once its successor serves, and nobody has used it for a while."""
        wanted = {w.key for w in self.wants()}
        coming = {(w.key.tenant, w.key.model) for w in self.wants() if w.latest and w.key not in held}
        waiting = False
        for key in held.keys() - wanted:
            if (key.tenant, key.model) in coming:
                continue
            idle_s = self.uses.idle_s(key)
            if idle_s > 0 and idle_s >= self.keeping.linger_s:
                self._keep_bases(key)
                self._remove(key)
            else:
                waiting = True
        return waiting

    def _keep_bases(self, key: Key) -> None:
        shelf = self.shelves.get(key.tenant)
        shelved = shelf.snapshot.bundles[key.model][key.version] if shelf else None
        if self._patches is not None and shelved is not None:
            layers = {name: layer.hex for name, layer in shelved.manifest.layers.items()}
            self._patches.keep(key.tenant, key.model, shelved.folder, layers)

    def _remove(self, key: Key) -> None:
        try:
            store.unpublish(self.shelves.place_of(key.tenant), key.model, key.version)
        except BundleError as error:
            log.warning("%s was gone before it could be removed: %s", key, error)
        self.uses.forget(key)

    def _remove_damaged(self, key: Key) -> None:
        """A folder of that name that is not served is not a version."""
        folder = self.shelves.place_of(key.tenant) / key.model / key.version
        if folder.exists() and key not in self.held():
            shutil.rmtree(folder)

    def _drop_empty(self) -> None:
        wanted = {t.tenant for t in self.desired.tenants} if self.desired else set()
        gone = [tenant for tenant, _ in self.shelves if tenant not in wanted]
        for tenant in gone:
            self.shelves.drop(tenant)
        if gone:
            self.shelves.refresh()


def _taken_back(desired: Desired) -> dict[str, TakenBack]:
    return {t.tenant: TakenBack(t.grants_from_s, t.revoked_devices, frozenset(t.revoked_grants)) for t in desired.tenants}


def _trial(folder: Path, model: str) -> store.Trial | None:
    """The trial as it stands; one whose file is damaged is begun again."""
    try:
        return store.trial(folder, model)
    except BundleError as error:
        log.warning("%s", error)
        return None


def _wanted_trial(tenant: str, model: DesiredModel, held: dict[Key, Has], before: store.Trial | None) -> store.Trial | None:
    """What the hub's word makes of a model's trial; None: none, or its version is not here yet."""
    challenger = challenger_of(model)
    other = held.get(Key(tenant, model.name, challenger.version)) if challenger else None
    if challenger is None or other is None:
        return None
    same = before is not None and (before.version, before.digest) == (other.key.version, other.digest)
    begun_s = before.since_s if before is not None and same else time.time()
    terms = challenger.terms
    return store.Trial(
        version=other.key.version,
        digest=other.digest,
        weight=challenger.weight,
        sites=terms.sites,
        shadow=terms.shadow,
        latency_ms=terms.latency_ms,
        since_s=begun_s if terms.since_s is None else terms.since_s,
    )
