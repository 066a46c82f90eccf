"""Step `rollout`: a published version replaces the champion, and the registry and the hub follow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cellwright.bundle import store
from cellwright.lifecycle.rollout.controller import Hands, Tell, begin, drive
from cellwright.lifecycle.rollout.record import Files, Registration, Rolling
from cellwright.lifecycle.rollout.targets import HubTarget, StoreTarget, Target
from cellwright.params import HubParams, Params
from cellwright.steps import hub as hubs
from cellwright.workspace import Workspace


def _silent(rolling: Rolling, event: object) -> None:
    pass


@contextmanager
def hands(hub: HubParams, ws: Workspace, tell: Tell = _silent) -> Iterator[Hands]:
    """What a controller of this project acts with: on the hub where the parameters name one, else on the published folder."""
    with hubs.hub_of(hub, ws) as client:
        target: Target = HubTarget(client) if client else StoreTarget(ws.published)
        yield Hands(target, follow=lambda rolling: _follow(ws, rolling), tell=tell)


def roll_out(
    params: Params, ws: Workspace, name: str, version: str, tell: Tell = _silent, pause: Callable[[float], None] = time.sleep
) -> Rolling:
    """Replace the version of a bundle that is in use by another, guarded as the parameters say; returns how it ended.

    A rollout of this version that was interrupted goes on.

    Raises:
        CellwrightError: there is nothing to replace, another rollout is under way, or it can never take effect.
    """
    files = Files(ws.rollouts, name)
    with hands(params.hub, ws, tell) as acting:
        begin(files, version, params.rollout, acting, registration(ws, name, version))
        return drive(files, Hands(acting.target, acting.follow, acting.tell, acting.clock, pause))


def registration(ws: Workspace, name: str, version: str) -> Registration | None:
    """Who stands behind a bundle in the registry; None: it was never registered."""
    from cellwright.registry import champions

    found = champions.registered_as(ws, name, version)
    if found is None:
        return None
    return Registration(model_name=found[0], version=found[1], before=champions.number(ws, found[0]))


def follow_champion(params: Params, ws: Workspace) -> tuple[str, ...]:
    """Bring what the registry's `champion` aliases name to the edge and the hub; one line for each model that changed.

    A model whose rollout is under way is left to it. One whose champion was never published is named.
    """
    from cellwright.registry import champions

    told = []
    with hubs.hub_of(params.hub, ws) as client:
        for champion in champions.list_champions(ws):
            name = store.bundle_name(champion.model_name)
            if champion.semantic is None or _under_way(ws, name):
                continue
            version = store.published_version(ws.published, name, champion.semantic)
            if version is None:
                told.append(f"{name} {champion.semantic} is champion and not published; `cellwright run` or step publish does it")
                continue
            told += _serve(ws, name, version)
            if client is not None:
                before = hubs.publication(client, name)
                hubs.upload(client, ws, name, version)
                now = hubs.put_in_use(client, name, version)
                told += [f"hub: {name} {version} on {', '.join(now.edges) or 'no edge yet'}"] if now != before else []
    return tuple(told)


def _serve(ws: Workspace, name: str, version: str) -> list[str]:
    now = store.pointer(ws.published, name)
    if now is not None and now.version == version:
        return []
    store.switch(ws.published, name, version)
    return [f"edge: {name} {version}"]


def _under_way(ws: Workspace, name: str) -> bool:
    files = Files(ws.rollouts, name)
    return files.document.is_file() and not files.read().over


def _follow(ws: Workspace, rolling: Rolling) -> None:
    """The registry's alias, and with a hub this machine's own edge, as the rollout ended."""
    from cellwright.registry import champions

    state, behind = rolling.state, rolling.registration
    promoted = state.outcome == "promoted"
    if rolling.target == "hub":
        wanted = state.challenger if promoted else state.champion
        if wanted in store.versions(ws.published, state.model):
            _serve(ws, state.model, wanted)
    if behind is None:
        return
    if promoted:
        champions.promote(ws, behind.model_name, behind.version)
    else:
        champions.give_back(ws, behind.model_name, behind.version, behind.before, state.events[-1].what)
