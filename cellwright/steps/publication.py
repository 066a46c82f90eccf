"""What stood before a publication, so that it can be taken back: in the registry, on the edge's shelf and in the hub.

It is noted in the run's folder before anything is changed, and removed when all of it is done: a run that was killed in between finds
there what stood before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout
from pydantic import Field

from cellwright.bundle import store
from cellwright.errors import CellwrightError, WorkspaceError
from cellwright.hub.contract import Terms
from cellwright.lifecycle.rollout.controller import decide
from cellwright.lifecycle.rollout.record import Files
from cellwright.params import Params
from cellwright.results import Registered, Result
from cellwright.steps import hub as hubs
from cellwright.steps.rollout import hands
from cellwright.workspace import Workspace

if TYPE_CHECKING:
    from cellwright.hub.client import HubClient

_WAIT_S = 300.0  # for another publication of the same model, which takes seconds


class Standing(Result):
    """Before the publication."""

    model_name: str
    champion: str | None  # number in the registry
    latest: str | None  # that the edge serves
    versions: tuple[str, ...]
    hub_version: str | None = None
    hub_weights: dict[str, float] = Field(default_factory=dict)
    hub_canary: str | None = None
    hub_terms: Terms | None = None
    hub_releases: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of the bundle."""
        return store.bundle_name(self.model_name)


@contextmanager
def alone(params: Params, ws: Workspace, wait_s: float = _WAIT_S) -> Iterator[Callable[[], None]]:
    """Be the one publisher of this run's model: two at once would each take the other's for what stood before.

    Yields what lets others in before the block ends: a rollout takes its time, and keeps others out of what it changes by itself.

    Raises:
        WorkspaceError: another publishes it, and is not done in time; or its lock cannot be written.
    """
    name = store.bundle_name(_model_name(params, ws))
    path = ws.rollouts / f"{name}.publication.lock"
    lock = FileLock(path, timeout=wait_s)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise WorkspaceError(
            f"another run is publishing {name} and was not done within {wait_s:g} s; nothing of this one is published yet: start it "
            "again when the other is done, it goes on where it ended"
        ) from None
    except OSError as error:
        raise WorkspaceError(
            f"cannot write {path} ({error.strerror}), which keeps other publishers out; nothing of this run is published yet: make it "
            "and its folder writable, and start it again"
        ) from error
    try:
        yield lock.release
    finally:
        lock.release()


def note(params: Params, ws: Workspace) -> Standing:
    """Note what stands; after a kill, what stood before the run that was killed.

    Raises:
        CellwrightError: the registry or the hub cannot be asked.
    """
    from cellwright.registry import champions

    if _path(ws).is_file():
        return Standing.read(_path(ws))
    model_name = _model_name(params, ws)
    name = store.bundle_name(model_name)
    now = store.pointer(ws.published, name)
    found = Standing(
        model_name=model_name,
        champion=champions.number(ws, model_name),
        latest=now.version if now else None,
        versions=tuple(store.versions(ws.published, name)),
    )
    with hubs.hub_of(params.hub, ws) as client:
        if client is not None:
            found = found.model_copy(update={"hub_releases": hubs.versions(client, name), **_published(client, name)})
    return found.save(_path(ws))


def present_where(own: Params, present: Params, overrides: Sequence[str] = ()) -> Params:
    """A run's parameters with where and how to publish as it stands at present.

    What the run alone was asked for stays: a rollout or a hub that came with `--set` is not in params.yaml, and without it the version
    would serve unguarded, or elsewhere. `overrides` that speak of the section have the last word.
    """
    changed = {}
    for section, is_default in (("rollout", present.rollout.mode == "direct"), ("hub", present.hub.url is None)):
        said = any(override.partition("=")[0].partition(".")[0] == section for override in overrides)
        changed[section] = getattr(own if is_default and not said else present, section)
    return own.model_copy(update=changed)


def settle(ws: Workspace) -> None:
    """The publication is done: there is nothing to take back."""
    _path(ws).unlink(missing_ok=True)


def take_back(params: Params, ws: Workspace, standing: Standing, why: str) -> list[str]:
    """Bring everything back to what stood before. Each part is tried whatever comes of the others; returns what could not be done.

    What another has changed since is left as it is.
    """
    problems = []
    for part in (_end_rollout, _edge, _hub, _registry):
        try:
            part(params, ws, standing, why)
        except CellwrightError as error:
            problems.append(str(error))
    if not problems:
        settle(ws)
    return problems


def _end_rollout(params: Params, ws: Workspace, standing: Standing, why: str) -> None:
    files = Files(ws.rollouts, standing.name)
    if not files.document.is_file():
        return
    state = files.read().state
    if state.champion == standing.latest and state.challenger == _ours(ws) and state.outcome != "rolled_back":
        with hands(params.hub, ws) as acting:
            decide(files, acting, promoted=False, why=why)


def _edge(params: Params, ws: Workspace, standing: Standing, why: str) -> None:
    ours = _ours(ws)
    if ours in store.versions(ws.published, standing.name) and ours not in standing.versions:
        store.unpublish(ws.published, standing.name, ours)
    now = store.pointer(ws.published, standing.name)
    if standing.latest is not None and now is not None and now.version == ours != standing.latest:
        store.switch(ws.published, standing.name, standing.latest)


def _hub(params: Params, ws: Workspace, standing: Standing, why: str) -> None:
    from cellwright.hub.contract import Publication

    with hubs.hub_of(params.hub, ws) as client:
        if client is None:
            return
        now, name = hubs.publication(client, standing.name), standing.name
        ours = _ours(ws)
        new = [v for v in hubs.versions(client, name) if v == ours and v not in standing.hub_releases]
        if now is not None and ours in now.shares and ours != standing.hub_version:
            if standing.hub_version is None:
                client.unpublish(name)
            else:
                trial = {"weights": standing.hub_weights, "canary": standing.hub_canary, "terms": standing.hub_terms}
                before = Publication.model_validate({"version": standing.hub_version, **trial})
                client.publish(name, before, expected=now.number)
        for version in new:
            client.delete_release(name, version)
        if new and not standing.hub_releases:
            client.delete_model(name)


def _registry(params: Params, ws: Workspace, standing: Standing, why: str) -> None:
    from cellwright.registry import champions

    if not ws.registration.is_file():
        return
    registered = Registered.read(ws.registration)
    if registered.version is not None and registered.version != standing.champion:
        champions.give_back(ws, registered.model_name, registered.version, standing.champion, why)
        registered.model_copy(update={"champion": False, "awaits_rollout": False, "reason": why}).save(ws.registration)


def _ours(ws: Workspace) -> str | None:
    """The version that this run publishes."""
    if not (ws.bundle / "index.json").is_file():
        return None
    from cellwright.bundle.keys import trusted
    from cellwright.bundle.layout import verify

    return verify(ws.bundle, trusted(ws.keys)).version


def _published(client: HubClient, name: str) -> dict[str, object]:
    now = hubs.publication(client, name)
    if now is None:
        return {}
    return {"hub_version": now.version, "hub_weights": now.weights, "hub_canary": now.canary, "hub_terms": now.terms}


def _model_name(params: Params, ws: Workspace) -> str:
    from cellwright.registry import champions

    return champions.name_of(params, ws)


def _path(ws: Workspace) -> Path:
    return ws.run_folder / "standing.json"
