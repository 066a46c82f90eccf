"""Publishing into a hub: the run's bundle becomes a release of the tenant, and, where it serves, the version in use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cellwright.bundle import store
from cellwright.bundle.keys import key_id, signing_key
from cellwright.errors import WrongUse
from cellwright.params import HubParams
from cellwright.workspace import Workspace

if TYPE_CHECKING:
    from cellwright.hub.client import HubClient
    from cellwright.hub.contract import Published, Release


@contextmanager
def hub_of(params: HubParams, ws: Workspace) -> Iterator[HubClient | None]:
    """A client of the hub that the parameters name; None where they name none.

    Raises:
        WrongUse: there is no token for it.
    """
    if params.url is None:
        yield None
        return
    from cellwright.hub.client import HubClient

    token = _token(params, ws)
    with HubClient(params.url, token, ca=ws.root / params.ca if params.ca else None) as client:
        yield client


def upload(client: HubClient, ws: Workspace, name: str, version: str, error: float | None = None) -> Release:
    """Bring a published bundle to the hub; one that is there already is left as it is. `error`: its MAE, for matching.

    Raises:
        HubRefused: the hub has this version with other content, or a quota is reached.
        HubError: the hub cannot be reached; the same call goes on.
        BundleError: the version is not published, or not as it was signed.
    """
    from cellwright.hub import publishing
    from cellwright.hub.contract import Figures

    store.digest_of(ws.published, name, version)  # raises where it is not published
    key = signing_key(ws.keys).public_key()
    figures = Figures(task="traffic forecast", error=error)
    return publishing.upload(client, ws.published / name / version, {key_id(key): key}, figures=figures)


def put_in_use(client: HubClient, name: str, version: str) -> Published:
    """Make a version the one in use on all edges that shall hold the model (publishing.py). Raises Changed."""
    from cellwright.hub import publishing

    return publishing.put_in_use(client, name, version)


def publication(client: HubClient, name: str) -> Published | None:
    """What is published of a model; None: nothing, or there is no such model."""
    from cellwright.hub import publishing

    return publishing.publication(client, name)


def versions(client: HubClient, name: str) -> tuple[str, ...]:
    """Releases of a model; none where there is no such model."""
    from cellwright.hub.refusals import NotFound

    try:
        return client.model(name).versions
    except NotFound:
        return ()


def _token(params: HubParams, ws: Workspace) -> str:
    try:
        given = (ws.root / params.token_file).read_text() if params.token_file else os.environ.get("CELLWRIGHT_HUB_TOKEN", "")
    except OSError as error:
        raise WrongUse(f"cannot read hub.token_file {params.token_file}: {error.strerror}") from None
    if not given.strip():
        raise WrongUse(
            "hub.url is set and there is no token: set hub.token_file or CELLWRIGHT_HUB_TOKEN; `cellwright hub token new`"
        )
    return given.strip()
