"""Published bundles: `<folder>/<name>/<version>/` holds an OCI layout each, `<folder>/<name>/latest.json` names the one to use,
and `<folder>/<name>/trial.json`, where there is one, a version that is tried out beside it.

Versions are written once and never changed; the pointer is replaced whole. A reader therefore always sees a whole bundle.
"""

from __future__ import annotations

import hmac
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from filelock import FileLock
from pydantic import Field

from cellwright.bundle.keys import Trust
from cellwright.bundle.layout import verify
from cellwright.bundle.manifest import Manifest, check_name, parse_index
from cellwright.errors import BundleError, CellwrightError
from cellwright.files import whole_folder
from cellwright.results import Result
from cellwright.workspace import Workspace

_POINTER, _TRIAL = "latest.json", "trial.json"
_LOCK_WAIT_S = 60


class Pointer(Result):
    """The version in use, and those that were before it (the newest last)."""

    version: str
    digest: str
    previous: tuple[str, ...] = ()


class Trial(Result):
    """A version (the challenger) that is tried out beside the latest (the champion)."""

    version: str
    digest: str
    weight: Annotated[float, Field(ge=0, le=1)]  # share of the requests that it answers
    sites: tuple[str, ...] = ()  # sites whose requests it answers in any case
    shadow: Annotated[float, Field(ge=0, le=1)] = 1.0  # share of requests that both compute, to compare their errors
    latency_ms: Annotated[float, Field(gt=0)] = 10.0  # an answer later than this counts as late
    since_s: float  # epoch; what is counted is counted from then


def place(store: Path, layout: Path, manifest: Manifest, *, activate: bool, move: bool = False) -> Path:
    """Bring a verified bundle into the store; with `activate`, or where there is none yet, it becomes the latest.

    It is copied, or moved where `layout` lies on the same disk and is not needed any more.

    Raises:
        BundleError: this version is there with other content.
    """
    folder = store / manifest.name / manifest.version
    with _locked(store, manifest.name):
        if not folder.exists():
            _bring(layout, folder, move=move)
        elif not holds(folder, manifest):
            raise BundleError(
                f"{manifest.name} {manifest.version} is published already with other content; versions never change: "
                "register a new version, or take the published one back first"
            )
        now = pointer(store, manifest.name)
        if activate or now is None:
            _point_to(store / manifest.name / _POINTER, now, manifest.version, manifest.digest)
    return folder


def _bring(layout: Path, folder: Path, *, move: bool) -> None:
    if move:
        layout.rename(folder)
        return
    with whole_folder(folder) as aside:
        shutil.copytree(layout, aside, dirs_exist_ok=True)


def holds(folder: Path, manifest: Manifest) -> bool:
    """Whether a published folder is this very bundle, by the digest in its index."""
    return hmac.compare_digest(_digest(folder), manifest.digest)


def unpublish(store: Path, name: str, version: str) -> str | None:
    """Take a version back; where it was the latest, the one before it is again. Returns the latest version now.

    Raises:
        BundleError: there is no such version.
    """
    if version not in versions(store, name):
        raise BundleError(f"{name} {version} is not published; there are: {', '.join(versions(store, name)) or 'none'}")
    with _locked(store, name):
        now = pointer(store, name)
        if now is not None:
            _point_back(store / name / _POINTER, now, version)
        if (tried := trial(store, name)) is not None and tried.version == version:
            (store / name / _TRIAL).unlink()
        gone = store / name / f".{version}.gone"
        (store / name / version).rename(gone)
        shutil.rmtree(gone)
    left = pointer(store, name)
    return left.version if left else None


def serve_version(store: Path, name: str, semantic: str) -> str:
    """Make a published version of a registered model the latest again; returns the version.

    Raises:
        BundleError: it was never published, or was taken back.
    """
    chosen = bundle_name(name)
    version = published_version(store, chosen, semantic)
    if version is None:
        raise BundleError(f"{chosen} {semantic} is not published; there are: {', '.join(versions(store, chosen)) or 'none'}")
    with _locked(store, chosen):
        _point_to(store / chosen / _POINTER, pointer(store, chosen), version, _digest(store / chosen / version))
    return version


def published_version(store: Path, name: str, semantic: str) -> str | None:
    """The published version of a registered one: its number, or that with a digest; None where there is none."""
    there = [v for v in versions(store, name) if v == semantic or v.startswith(f"{semantic}+")]
    return there[-1] if there else None


def try_out(store: Path, name: str, wanted: Trial) -> None:
    """Begin a trial, or change its weight.

    Raises:
        BundleError: that version is not here, has another digest, or is the latest already.
    """
    with _locked(store, name):
        folder, now = store / name / wanted.version, pointer(store, name)
        if not folder.is_dir() or not hmac.compare_digest(_digest(folder), wanted.digest):
            raise BundleError(f"{name} {wanted.version} with digest {wanted.digest[:19]}… is not here; publish or fetch it first")
        if now is None or now.version == wanted.version:
            raise BundleError(f"{name} {wanted.version} cannot be tried out: there is no other version that serves")
        wanted.save(store / name / _TRIAL)


def end_trial(store: Path, name: str, *, promote: bool) -> None:
    """End a trial, if there is one; with `promote` the challenger becomes the latest. Requests meet a whole version throughout."""
    with _locked(store, name):
        tried = trial(store, name)
        if tried is None:
            return
        if promote:
            _point_to(store / name / _POINTER, pointer(store, name), tried.version, tried.digest)
        (store / name / _TRIAL).unlink()


def switch(store: Path, name: str, version: str, *, warm: Trial | None = None) -> None:
    """Make a version the latest at once and end any trial; `warm`: begin this one, so that the version before it stays warm.

    Raises:
        BundleError: that version is not here.
    """
    with _locked(store, name):
        if not (store / name / version).is_dir():
            raise BundleError(f"{name} {version} is not here; there are: {', '.join(versions(store, name)) or 'none'}")
        _point_to(store / name / _POINTER, pointer(store, name), version, _digest(store / name / version))
        if warm is not None:
            warm.save(store / name / _TRIAL)
        else:
            (store / name / _TRIAL).unlink(missing_ok=True)


def digest_of(store: Path, name: str, version: str) -> str:
    """Digest of a version's manifest. Raises BundleError where it is not here."""
    check_name(name, version)
    if not (store / name / version).is_dir():
        raise BundleError(f"{name} {version} is not here; there are: {', '.join(versions(store, name)) or 'none'}")
    return _digest(store / name / version)


def trial(store: Path, name: str) -> Trial | None:
    """The trial of a name, if there is one.

    Raises:
        BundleError: its file is damaged.
    """
    path = store / name / _TRIAL
    if not path.is_file():
        return None
    try:
        found = Trial.read(path)
        check_name(name, found.version)
    except CellwrightError as error:
        raise BundleError(f"{path} is damaged ({error}); begin the trial again") from error
    return found


def bundle_name(registered: str) -> str:
    """The name of a registered model as a bundle's: what has no place in a path or an address becomes `_`."""
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", registered).lstrip(".+-")[:200] or "model"


def retire(ws: Workspace, *, keep: int, dry: bool) -> list[tuple[Path, int]]:
    """Delete all but the newest `keep` published versions of each name; the latest and a tried one stay, whatever their number.

    Returns what went, or with `dry` would go, with its bytes.
    """
    gone = []
    for name in names(ws.published):
        used = {p.version for p in (pointer(ws.published, name), trial(ws.published, name)) if p is not None}
        old = versions(ws.published, name)[: -keep or None]
        for version in [v for v in old if v not in used]:
            folder = ws.published / name / version
            gone.append((folder, sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())))
            if not dry:
                unpublish(ws.published, name, version)
    return gone


def names(store: Path) -> list[str]:
    """Names that have a published version."""
    return [p.name for p in sorted(store.glob("*")) if p.is_dir() and versions(store, p.name)]


def versions(store: Path, name: str) -> list[str]:
    """Published versions of a name, oldest first by their numbers."""
    found = [p.name for p in (store / name).glob("*") if p.is_dir() and _is_version(name, p.name)] if _is_name(name) else []
    return sorted(found, key=_order)


def pointer(store: Path, name: str) -> Pointer | None:
    """What is the latest; None where nothing is published under the name.

    Raises:
        BundleError: the pointer is damaged.
    """
    path = store / name / _POINTER
    if not path.is_file():
        return None
    try:
        found = Pointer.read(path)
        check_name(name, found.version)
    except CellwrightError as error:
        raise BundleError(f"{path} is damaged ({error}); publish again") from error
    return found


def latest(store: Path, name: str, trust: Trust) -> tuple[Path, Manifest]:
    """Folder and verified manifest of the latest version.

    Raises:
        BundleError: nothing is published under the name, or it does not verify.
    """
    now = pointer(store, name)
    if now is None:
        raise BundleError(f"nothing is published as '{name}'; there are: {', '.join(names(store)) or 'none'}")
    folder = store / name / now.version
    manifest = verify(folder, trust)
    if (manifest.name, manifest.version) != (name, now.version) or not hmac.compare_digest(manifest.digest, now.digest):
        raise BundleError(f"{folder} holds {manifest.name} {manifest.version}, expected {name} {now.version}; publish it again")
    return folder, manifest


def _point_to(path: Path, now: Pointer | None, version: str, digest: str) -> None:
    if now is not None and now.version == version:
        return
    before = () if now is None else (*(v for v in now.previous if v != version), now.version)
    Pointer(version=version, digest=digest, previous=before).save(path)


def _point_back(path: Path, now: Pointer, version: str) -> None:
    previous = tuple(v for v in now.previous if v != version and (path.parent / v).is_dir())
    if now.version != version:
        now.model_copy(update={"previous": previous}).save(path)
    elif previous:
        digest = _digest(path.parent / previous[-1])
        Pointer(version=previous[-1], digest=digest, previous=previous[:-1]).save(path)
    else:
        path.unlink()


def _digest(folder: Path) -> str:
    return parse_index((folder / "index.json").read_bytes()).model.digest


@contextmanager
def _locked(store: Path, name: str) -> Iterator[None]:
    check_name(name, "0.0.0")
    (store / name).mkdir(parents=True, exist_ok=True)
    with FileLock(store / name / ".lock", timeout=_LOCK_WAIT_S):
        yield


def _is_name(name: str) -> bool:
    return _is_version(name, "0.0.0")


def _is_version(name: str, version: str) -> bool:
    try:
        check_name(name, version)
    except BundleError:
        return False
    return True


def _order(version: str) -> tuple[tuple[int, ...], str]:
    numbers, _, rest = version.partition("+")
    return tuple(int(n) for n in numbers.partition("-")[0].split(".")), rest
