"""Steps 1 and 2: company A leases room, uploads its models and says where they lie; the edges bring them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import httpx

from cellwright.edge.acceleration import NetworkAccess
from cellwright.edge.agent import Hub
from cellwright.errors import HubRefused
from cellwright.hub import contract as c
from cellwright.hub.client import HubClient
from cellwright.hub.doors.uploads import TUS
from tourist_guide import servers, weights
from tourist_guide.cast import COMPANY, FOREIGN, MODEL_A, MODEL_B, SERVICE, Cast, until
from tourist_guide.places import AREAS, COMMERCIAL, RESORT, SPOTS, ZONES

_SCOPES: tuple[c.Scope, ...] = ("models:read", "models:write", "placement:write", "publish", "device")
_CHUNKS, _MOST_CHUNK_BYTES = 8, 8 * 1024**2  # of an upload: so many, or more of this size


class Interrupted(Exception):
    """Company A's line breaks."""


# -- step 1


def lease(cast: Cast) -> None:
    """Tenants with quotas and tokens, then company A's two models, the first over a line that breaks."""
    room = c.Quota(bytes=int(4.5 * cast.sizes.bytes), models=4, uploads=2)
    for tenant, title in ((COMPANY, "Company A"), (FOREIGN, "Company B")):
        cast.operator.put_tenant(tenant, c.TenantForm(title=title, quota=room))
        token = cast.operator.new_token(tenant, c.TokenForm(name="ci", scopes=_SCOPES, lifetime_s=86_400))
        cast.clients[tenant] = HubClient(cast.hub_url, token.token)
    tell = cast.telling
    tell.line(f"tenant {COMPANY}: at most {room.bytes:,} bytes in {room.models} models; token {token.id[:4]}… for a day, scoped")
    for number, model in enumerate((MODEL_A, MODEL_B)):
        made(cast, model, "1.0.0", seed=cast.sizes.seed + number)
    _interrupted(cast)
    release = upload(cast, MODEL_B, "1.0.0")
    tell.line(f"{MODEL_B} 1.0.0: {release.bytes:,} bytes; the hub wrapped and signed it ({release.digest[:19]}…)")
    usage = cast.company.me().usage
    tell.holds(usage.models == 2 and usage.uploads == 0, f"two models of 32-bit weights are stored: {usage.bytes:,} bytes")
    _refused(cast, room)


def made(cast: Cast, model: str, version: str, *, seed: int, tuned: int | None = None) -> None:
    """Company A makes a file of weights."""
    path = cast.folder / "company-a" / f"{model}-{version}.safetensors"
    path.parent.mkdir(exist_ok=True)
    weights.write(path, cast.sizes.bytes, seed, tuned=tuned)
    cast.files[f"{model} {version}"] = path


def upload(cast: Cast, model: str, version: str) -> c.Release:
    """Company A uploads it, in chunks."""
    path = cast.files[f"{model} {version}"]
    return cast.company.upload(path, _form(path, model, version), chunk_bytes=_chunk_bytes(cast))


def _form(path: Path, model: str, version: str) -> c.UploadForm:
    figures = c.Figures(task="panorama tourist guide")
    return c.UploadForm(
        model=model, version=version, format="safetensors", bytes=path.stat().st_size, sha256=sha256(path), figures=figures
    )


def _chunk_bytes(cast: Cast) -> int:
    return min(_MOST_CHUNK_BYTES, -(-cast.sizes.bytes // _CHUNKS))


def _interrupted(cast: Cast) -> None:
    """The line breaks in the third chunk; the same upload goes on at the byte that the hub has."""
    path, size = cast.files[f"{MODEL_A} 1.0.0"], _chunk_bytes(cast)
    opened = cast.company.open_upload(_form(path, MODEL_A, "1.0.0"))
    with path.open("rb") as file:
        content = file.read(3 * size)
    for at in (0, size):
        cast.company.send_chunk(opened.id, at, content[at : at + size])
    headers = {**TUS, "Upload-Offset": str(2 * size), "Content-Type": "application/offset+octet-stream"}
    headers["Content-Length"] = str(size)
    try:
        cast.company.http.patch(f"/v1/uploads/{opened.id}", content=_half(content[2 * size :]), headers=headers)
    except (Interrupted, httpx.HTTPError) as error:
        cast.telling.line(
            f"{MODEL_A} 1.0.0: the line breaks in the third of {-(-cast.sizes.bytes // size)} chunks ({type(error).__name__})"
        )
    there = cast.company.upload_offset(opened.id)
    release = upload(cast, MODEL_A, "1.0.0")
    digest = release.layers["model.safetensors"].removeprefix("sha256:")
    cast.telling.holds(
        2 * size <= there < cast.sizes.bytes and digest == sha256(path),
        f"the upload went on at byte {there:,} of {cast.sizes.bytes:,} and is whole: SHA-256 {digest[:16]}…",
    )


def _half(content: bytes) -> Iterator[bytes]:
    yield content[: len(content) // 2]
    raise Interrupted


def _refused(cast: Cast, room: c.Quota) -> None:
    """What the quota does not allow is refused before a byte of it is sent."""
    too_large = c.UploadForm(model="model-c", version="1.0.0", format="opaque", bytes=room.bytes)
    try:
        cast.company.open_upload(too_large)
        said = ""
    except HubRefused as error:
        said = str(error)
    cast.telling.holds(bool(said), f"an upload beyond the quota is refused: {said}")


# -- step 2


def place(cast: Cast, stack: ExitStack) -> None:
    """Model A in the commercial area, model B in the resort; two edges start, bring, verify and report what they hold."""
    company, tell = cast.company, cast.telling
    for area, geometry in AREAS.items():
        cast.operator.put_area(area, c.AreaForm(geometry=geometry))
        stack.enter_context(_edge(cast, area, stack))
    until(lambda: {edge.name for edge in cast.operator.edges()} >= set(AREAS), cast.sizes.patience_s, "both edges are registered")
    company.place(MODEL_A, c.PlacementForm(model=MODEL_A, areas=(COMMERCIAL,), services=(SERVICE,), pinned=True))
    company.place(
        MODEL_B, c.PlacementForm(model=MODEL_B, areas=(RESORT,), edges=(COMMERCIAL,), services=(SERVICE,))
    )  # also where its tourists set out
    for model in (MODEL_A, MODEL_B):
        published = company.publish(model, c.Publication(version="1.0.0"))
        tell.line(f"{model} 1.0.0 is published; it belongs on {' and '.join(published.edges)}")
    wanted = {COMMERCIAL: {MODEL_A, MODEL_B}, RESORT: {MODEL_B}}
    _, seconds = until(lambda: _held(cast) == wanted, cast.sizes.patience_s, "the edges report what they hold", pause_s=0.05)
    tell.holds(True, f"the edges verified and hold what they shall, and nothing else; reported after {seconds:.2f} s")


def _edge(cast: Cast, name: str, stack: ExitStack) -> AbstractContextManager[str]:
    """An edge in an area: its port behind an entrance of the network, its token from the operator."""
    port = servers.free_port()
    host, entrance = cast.remote.link("127.0.0.1", port)
    cast.entrances[name] = entrance
    token = cast.operator.new_token(c.OPERATOR, c.TokenForm(name=name, scopes=("edge",))).token
    options = servers.EdgeOptions(
        store=cast.folder / "edges" / name,
        port=port,
        hub=Hub(
            cast.hub_url, token, name, SPOTS[name], url=f"http://{host}:{entrance}", zone=str(ZONES[name]), provider="Operator"
        ),
        network=NetworkAccess(
            cast.network.url, cast.network.token, "127.0.0.1", entrance, cast.folder / "edges" / f"{name}-qos.db"
        ),
    )
    cast.edges[name] = f"http://127.0.0.1:{port}"
    return servers.process(servers.edge, options)


def _held(cast: Cast) -> dict[str, set[str]]:
    beats = {edge.name: edge.heartbeat for edge in cast.operator.edges()}
    return {name: {held.model for held in beat.held} for name, beat in beats.items() if beat}


def sha256(path: Path) -> str:
    """Of a file, hexadecimal."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
