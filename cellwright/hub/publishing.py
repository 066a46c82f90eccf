"""Bringing a published bundle (a signed OCI layout on disk) to a hub: its bytes, the key that signed it, and its publication.

Everything can be repeated: a version that the hub has is not sent again, an upload that broke off goes on, a publication that stands
is left alone.
"""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
from pathlib import Path

from cellwright.bundle.keys import Trust, public_pem
from cellwright.bundle.layout import verify
from cellwright.bundle.manifest import Manifest
from cellwright.errors import HubRefused
from cellwright.hub.client import HubClient
from cellwright.hub.contract import Figures, Publication, Published, Release, UploadForm
from cellwright.hub.refusals import NotFound

NOTHING = Figures()


def push(
    bundle: Path, hub_url: str, token: str, trust: Trust, *, ca: Path | None = None, figures: Figures = NOTHING
) -> Published:
    """Upload a layout and make it the version in use. `trust`: keys of whom it may be signed by; the hub learns the one that did.

    Raises:
        HubRefused: the hub has this version with other content, a quota is reached, or the token lacks a scope.
        Changed: another has published meanwhile.
        HubError: the hub cannot be reached; the same call goes on.
        BundleError: the folder holds no sound bundle.
    """
    with HubClient(hub_url, token, ca=ca) as client:
        release = upload(client, bundle, trust, figures=figures)
        return put_in_use(client, release.model, release.version)


def upload(client: HubClient, bundle: Path, trust: Trust, *, figures: Figures = NOTHING) -> Release:
    """Bring a layout to the hub; one that is there already is left as it is. `figures`: for matching. Raises as `push`."""
    manifest = verify(bundle, trust)
    there = release(client, manifest.name, manifest.version)
    if there is not None:
        return _same(there, manifest)
    _be_believed(client, manifest, trust)
    with tempfile.TemporaryDirectory() as folder:
        packed = _packed(bundle, Path(folder) / "bundle.tar")
        return client.upload(packed, _form(manifest, packed, figures))


def put_in_use(client: HubClient, name: str, version: str) -> Published:
    """Make a version the one in use on all edges that shall hold the model; nothing is done where it is alone in use already.

    Raises:
        Changed: another has published meanwhile.
    """
    now = publication(client, name)
    if now is not None and now.shares == {version: 1.0}:
        return now
    return client.publish(name, Publication(version=version), expected=now.number if now else 0)


def publication(client: HubClient, name: str) -> Published | None:
    """What is published of a model; None: nothing, or there is no such model."""
    try:
        return client.publication(name)
    except NotFound:
        return None


def release(client: HubClient, name: str, version: str) -> Release | None:
    """A release; None: there is none."""
    try:
        return client.release(name, version)
    except NotFound:
        return None


def _same(there: Release, manifest: Manifest) -> Release:
    if there.digest != manifest.digest:
        raise HubRefused(
            f"the hub has {manifest.name} {manifest.version} with other content ({there.digest[:19]}…, here {manifest.digest[:19]}…) and "
            "versions never change: register a new version"
        )
    return there


def _be_believed(client: HubClient, manifest: Manifest, trust: Trust) -> None:
    """Let the hub believe the key that signed the bundle on the tenant's bundles."""
    believed = client.keys()
    if manifest.signed_by not in {key.id for key in believed}:
        client.add_key(public_pem(trust[manifest.signed_by]).decode())


def _form(manifest: Manifest, packed: Path, figures: Figures) -> UploadForm:
    with packed.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    named = {"model": manifest.name, "version": manifest.version, "figures": figures}
    return UploadForm(**named, format="modelpack", bytes=packed.stat().st_size, sha256=sha256)


def _packed(layout: Path, out: Path) -> Path:
    """A layout as a tar whose bytes follow from the layout alone, so that a broken upload goes on."""
    with tarfile.open(out, "w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(p for p in layout.rglob("*") if p.is_file()):
            entry = tarfile.TarInfo(path.relative_to(layout).as_posix())
            entry.size = path.stat().st_size
            with path.open("rb") as content:
                archive.addfile(entry, content)
    return out
