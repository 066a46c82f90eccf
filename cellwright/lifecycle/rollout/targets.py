"""Where a rollout takes effect: the workspace's published store, or a hub that tells many edges.

`apply` brings a state into effect, whatever was in effect before; it can be repeated, so a controller that was killed repeats it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cellwright.bundle import store
from cellwright.edge.evidence import Evidence
from cellwright.errors import BundleError, HubRefused, WrongUse
from cellwright.lifecycle.rollout.record import Rolling, TargetName
from cellwright.lifecycle.rollout.rules import State

if TYPE_CHECKING:
    from cellwright.hub.client import HubClient
    from cellwright.hub.contract import GrantAnswer, Publication, Terms

LOCAL_EDGE = "http://127.0.0.1:8080"
_GRANT_LEEWAY_S = 120.0
_MOST_WEIGHT = 1 - 1e-6  # a publication must leave something to the version in use


class Target(Protocol):
    """What a rollout is applied to."""

    @property
    def kind(self) -> TargetName: ...

    def champion(self, model: str) -> str | None:
        """The version in use."""

    def digest(self, model: str, version: str) -> str:
        """Of a version that is there. Raises CellwrightError where it is not."""

    def edges(self, rolling: Rolling) -> Mapping[str, str]:
        """Who is asked for evidence: name -> address of it, without the query."""

    def headers(self, rolling: Rolling) -> Mapping[str, str]:
        """What the edges want to see before they tell."""

    def believes(self, found: Evidence, state: State) -> bool:
        """Whether evidence is of this rollout and not of one before it."""

    def apply(self, rolling: Rolling) -> None:
        """Bring the state into effect. Raises HubError where it cannot be reached now, other CellwrightErrors where it never can."""


class StoreTarget:
    """The folder that the edge servers of this machine (or of a shared disk) offer."""

    kind: TargetName = "store"

    def __init__(self, folder: Path) -> None:
        self._store = folder

    def champion(self, model: str) -> str | None:
        now = store.pointer(self._store, model)
        return now.version if now else None

    def digest(self, model: str, version: str) -> str:
        return store.digest_of(self._store, model, version)

    def edges(self, rolling: Rolling) -> Mapping[str, str]:
        return {url: f"{url.rstrip('/')}/v1/evidence" for url in rolling.params.edges or (LOCAL_EDGE,)}

    def headers(self, rolling: Rolling) -> Mapping[str, str]:
        return {}

    def believes(self, found: Evidence, state: State) -> bool:
        return same_versions(found, state) and found.since_s == state.started_s

    def apply(self, rolling: Rolling) -> None:
        state, model = rolling.state, rolling.state.model
        now = self.champion(model)
        if now not in {state.champion, state.challenger}:
            raise WrongUse(_published_over(state, now or "nothing"))
        if state.outcome == "running":
            store.try_out(self._store, model, _trial(rolling, state.challenger, rolling.digest, state.weight))
        elif state.outcome == "promoted":
            store.switch(self._store, model, state.challenger, warm=self._warm(rolling))
        elif self.champion(model) == state.challenger:
            store.switch(self._store, model, state.champion)
        else:
            store.end_trial(self._store, model, promote=False)

    def _warm(self, rolling: Rolling) -> store.Trial | None:
        """A trial of the old version that answers nothing: the edges keep its model ready."""
        if rolling.warm_until_s is None:
            return None
        old = rolling.state.champion
        return _trial(rolling, old, self.digest(rolling.state.model, old), 0.0).model_copy(update={"shadow": 0.0, "sites": ()})


class HubTarget:
    """A hub's publication: the edges that shall hold the model follow it."""

    kind: TargetName = "hub"

    def __init__(self, client: HubClient) -> None:
        self._client = client
        self._tenant: str | None = None
        self._grant: GrantAnswer | None = None

    def champion(self, model: str) -> str | None:
        from cellwright.hub.refusals import NotFound

        try:
            return self._client.publication(model).version
        except NotFound:
            return None

    def digest(self, model: str, version: str) -> str:
        return self._client.release(model, version).digest

    def edges(self, rolling: Rolling) -> Mapping[str, str]:
        if rolling.params.edges:
            return {url: f"{url.rstrip('/')}/v1/evidence" for url in rolling.params.edges}
        self._tenant = self._tenant or self._client.me().name
        holders = set(self._client.publication(rolling.state.model).edges)
        path = f"v1/tenants/{self._tenant}/evidence"
        return {e.name: f"{e.url.rstrip('/')}/{path}" for e in self._client.edges() if e.name in holders}

    def headers(self, rolling: Rolling) -> Mapping[str, str]:
        """A grant of the tenant's, new before the old one expires."""
        from cellwright.hub.contract import GrantAsk

        if self._grant is None or time.time() > self._grant.expires_s - _GRANT_LEEWAY_S:
            self._grant = self._client.grant(GrantAsk(device="rollout", models=(rolling.state.model,)))
        return {"Authorization": f"Bearer {self._grant.grant}"}

    def believes(self, found: Evidence, state: State) -> bool:
        return same_versions(found, state) and found.since_s == state.started_s

    def apply(self, rolling: Rolling) -> None:
        from cellwright.hub.contract import Publication

        wanted = _publication(rolling)
        now = self._client.publication(rolling.state.model)
        ours = {rolling.state.champion, rolling.state.challenger}
        if not set(now.shares) <= ours:
            raise HubRefused(_published_over(rolling.state, now.version))
        if Publication(version=now.version, weights=now.weights, canary=now.canary, terms=now.terms) != wanted:
            self._client.publish(rolling.state.model, wanted, expected=now.number)


def _published_over(state: State, version: str) -> str:
    return (
        f"another has published {state.model} {version} meanwhile; this rollout of {state.challenger} over it is refused: look at the "
        "publication, then begin a new one"
    )


def same_versions(found: Evidence, state: State) -> bool:
    """Whether evidence is of these two versions of this model."""
    return (found.model, found.champion, found.challenger) == (state.model, state.champion, state.challenger)


def _publication(rolling: Rolling) -> Publication:
    from cellwright.hub.contract import Publication

    state = rolling.state
    if state.outcome == "running":
        weights = {state.challenger: min(state.weight, _MOST_WEIGHT)}
        return Publication(version=state.champion, weights=weights, canary=state.challenger, terms=_terms(rolling))
    if state.outcome == "rolled_back":
        return Publication(version=state.champion)
    if rolling.warm_until_s is not None:
        idle = _terms(rolling).model_copy(update={"sites": (), "shadow": 0.0})
        return Publication(version=state.challenger, weights={state.champion: 0.0}, canary=state.champion, terms=idle)
    return Publication(version=state.challenger)


def _terms(rolling: Rolling) -> Terms:
    """Raises WrongUse: a hub takes no such parameters."""
    from pydantic import ValidationError

    from cellwright.hub.contract import Terms

    p = rolling.params
    try:
        return Terms(sites=p.sites, shadow=p.shadow, latency_ms=p.latency_ms, since_s=rolling.state.started_s)
    except ValidationError as error:
        first = error.errors()[0]
        raise WrongUse(f"rollout.{'.'.join(map(str, first['loc']))}: {first['msg']}; a hub takes no more than that") from None


def _trial(rolling: Rolling, version: str, digest: str, weight: float) -> store.Trial:
    p = rolling.params
    return store.Trial(
        version=version,
        digest=digest,
        weight=weight,
        sites=p.sites,
        shadow=p.shadow,
        latency_ms=p.latency_ms,
        since_s=rolling.state.started_s,
    )


def need_champion(target: Target, model: str) -> str:
    """The version in use. Raises BundleError where there is none to compare with."""
    found = target.champion(model)
    if found is None:
        raise BundleError(f"no version of {model} is in use: there is nothing to replace; publish the first one directly")
    return found
