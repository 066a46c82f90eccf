"""Publishing into a hub: the run's bundle becomes a release of the tenant, and, where it serves, the version in use."""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cellwright.bundle import store
from cellwright.bundle.keys import public_pem, signing_key
from cellwright.errors import HubRefused, WrongUse
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
        BundleError: the version is not published.
    """
    from cellwright.hub.contract import Figures, UploadForm
    from cellwright.hub.refusals import NotFound

    digest = store.digest_of(ws.published, name, version)
    try:
        there = client.release(name, version)
    except NotFound:
        pass
    else:
        if there.digest != digest:
            raise HubRefused(f"the hub has {name} {version} with other content; versions never change: register a new version")
        return there
    _be_believed(client, ws)
    with tempfile.TemporaryDirectory() as folder:
        packed = _packed(ws.published / name / version, Path(folder) / "bundle.tar")
        with packed.open("rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
        figures = Figures(task="traffic forecast", error=error)
        form = UploadForm(
            model=name, version=version, format="modelpack", bytes=packed.stat().st_size, sha256=sha256, figures=figures
        )
        return client.upload(packed, form)


def put_in_use(client: HubClient, name: str, version: str) -> Published:
    """Make a version the one in use on all edges that shall hold the model; nothing is done where it is alone in use already.

    Raises:
        Changed: another has published meanwhile.
    """
    from cellwright.hub.contract import Publication

    now = publication(client, name)
    if now is not None and now.shares == {version: 1.0}:
        return now
    return client.publish(name, Publication(version=version), expected=now.number if now else 0)


def publication(client: HubClient, name: str) -> Published | None:
    """What is published of a model; None: nothing, or there is no such model."""
    from cellwright.hub.refusals import NotFound

    try:
        return client.publication(name)
    except NotFound:
        return None


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


def _be_believed(client: HubClient, ws: Workspace) -> None:
    """Let the hub believe this project's signatures on the tenant's bundles."""
    pem = public_pem(signing_key(ws.keys).public_key()).decode()
    believed = client.keys()
    if pem.strip() not in {key.pem.strip() for key in believed}:
        client.add_key(pem)


def _packed(layout: Path, out: Path) -> Path:
    """An OCI layout as a tar whose bytes follow from the layout alone, so that a broken upload goes on."""
    with tarfile.open(out, "w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(p for p in layout.rglob("*") if p.is_file()):
            entry = tarfile.TarInfo(path.relative_to(layout).as_posix())
            entry.size = path.stat().st_size
            with path.open("rb") as content:
                archive.addfile(entry, content)
    return out
