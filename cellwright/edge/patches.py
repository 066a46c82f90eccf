"""Patches between versions (cellwright/delta): made once a pair, beside the serving, and offered where they pay.

<store>/.patches/<owner>/<model>/<base>-<target>-<patch>.patch     names are SHA-256; an empty file: tried, and does not pay
<store>/.bases/<owner>/<model>/<layer>/<sha256>                    layers of versions that are gone, which devices may still hold

`owner` is a tenant, or `_` for the workspace's own bundles. Bases are never served: a version that was taken back stays taken back.
Both are caches: their room counts against the disk budget, and is the first that is given up.
"""

from __future__ import annotations

import hashlib
import logging
import os
import queue
import re
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cellwright.edge.shelf import Shelved, Snapshot

log = logging.getLogger(__name__)
OWN = "_"
LEAST_BYTES = 64 * 1024  # a smaller file is fetched whole before a patch is looked for
_MAKE = (
    "import os, sys; os.nice(10); from pathlib import Path; from cellwright.delta import make; make(*map(Path, sys.argv[1:4]))"
)
_MAKE_S = 1_800.0
_NAME = re.compile(r"([0-9a-f]{64})-([0-9a-f]{64})-([0-9a-f]{64})\.patch")


@dataclass(frozen=True)
class Ready:
    """A patch that is offered."""

    path: Path
    base: str  # SHA-256, as the next two
    target: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class _Pair:
    owner: str
    model: str
    base: Path
    target: Path

    @property
    def name(self) -> str:
        return f"{self.base.name}-{self.target.name}"


class Patches:
    """The patches of one edge. Safe to use from several threads."""

    def __init__(self, store: Path, *, bases: int = 2) -> None:
        """`bases`: layers of so many versions that are gone are kept for patches; 0: none."""
        self._patches, self._bases, self._most_bases = store / ".patches", store / ".bases", bases
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], dict[tuple[str, str], Ready | None]] = defaultdict(dict)
        self._queue: queue.SimpleQueue[_Pair | None] = queue.SimpleQueue()
        self._queued: set[_Pair] = set()
        self._thread: threading.Thread | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._closed = False
        for path in self._patches.glob("*/*/*.patch"):
            self._learn(path)

    def find(self, owner: str, model: str, base: str, target: str) -> Ready | None:
        """A patch, if there is one and it pays."""
        found = self._known.get((owner, model), {}).get((base, target))
        return found if found is not None and found.path.is_file() else None

    def offered(self, owner: str, model: str, target: str) -> list[dict[str, object]]:
        """The patches that lead to a blob, for a bundle's description."""
        known = tuple(self._known.get((owner, model), {}).values())
        return [{"from": f"sha256:{r.base}", "bytes": r.bytes} for r in known if r is not None and r.target == target]

    def consider(self, owner: str, snapshot: Snapshot) -> None:
        """Have patches made to the latest version of each model, from whatever others are or were here."""
        for model, latest in snapshot.latest.items():
            versions = snapshot.bundles.get(model, {})
            if latest in versions:
                self._consider(owner, model, versions[latest], versions)

    def keep(self, owner: str, model: str, folder: Path, layers: Mapping[str, str]) -> None:
        """Keep the layers (name -> SHA-256) of a version that goes."""
        for name, digest in layers.items():
            source, target = folder / "blobs" / "sha256" / digest, self._bases / owner / model / name / digest
            if self._most_bases and source.is_file() and source.stat().st_size >= LEAST_BYTES and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(source, target)
                for old in sorted(target.parent.iterdir(), key=lambda p: p.stat().st_ctime_ns)[: -self._most_bases]:
                    old.unlink()

    def cached_bytes(self) -> int:
        """Room that patches and bases take; a base that is still part of a version takes none of its own."""
        files = [p.stat() for p in (*self._patches.glob("*/*/*.patch"), *self._bases.glob("*/*/*/*"))]
        return sum(status.st_size for status in files if status.st_nlink == 1)

    def trim(self, needed_bytes: int) -> int:
        """Give up room, the oldest first; returns how many bytes."""
        freed = 0
        paths = [*self._patches.glob("*/*/*.patch"), *self._bases.glob("*/*/*/*")]
        for path in sorted(paths, key=lambda p: p.stat().st_ctime_ns):
            if freed >= needed_bytes:
                break
            status = path.stat()
            freed += status.st_size if status.st_nlink == 1 else 0
            path.unlink()
        return freed

    def close(self) -> None:
        """Stop making."""
        self._closed = True
        self._queue.put(None)
        if self._child is not None:
            self._child.kill()
        if self._thread is not None:
            self._thread.join()

    def _consider(self, owner: str, model: str, latest: Shelved, versions: Mapping[str, Shelved]) -> None:
        for name, described in latest.manifest.layers.items():
            if described.size < LEAST_BYTES:
                continue
            target = latest.folder / described.blob
            for base in self._bases_of(owner, model, name, versions):
                if base.name != described.hex and (base.name, described.hex) not in self._known.get((owner, model), {}):
                    self._order(_Pair(owner, model, base, target))

    def _bases_of(self, owner: str, model: str, layer: str, versions: Mapping[str, Shelved]) -> Iterator[Path]:
        found = {d.hex: v.folder / d.blob for v in versions.values() if (d := v.manifest.layers.get(layer)) is not None}
        kept = {path.name: path for path in (self._bases / owner / model / layer).glob("*")}
        yield from (found | kept).values()

    def _order(self, pair: _Pair) -> None:
        with self._lock:
            if self._closed or pair in self._queued:
                return
            self._queued.add(pair)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="patches", daemon=True)
                self._thread.start()
        self._queue.put(pair)

    def _work(self) -> None:
        while (pair := self._queue.get()) is not None and not self._closed:
            try:
                self._make(pair)
            except (OSError, subprocess.SubprocessError) as error:
                if not self._closed:
                    log.warning("no patch for %s of %s: %s", pair.model, pair.owner, error)
            finally:
                self._queued.discard(pair)

    def _make(self, pair: _Pair) -> None:
        """In a process of its own: it takes 100 MB and a core, which the server keeps for its devices."""
        from cellwright.delta import inspect, pays

        folder = self._patches / pair.owner / pair.model
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / f".{pair.name}"
        command = [sys.executable, "-c", _MAKE, str(pair.base), str(pair.target), str(aside)]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as child:
            self._child = child
            try:
                _, said = child.communicate(timeout=_MAKE_S)
            except subprocess.TimeoutExpired:
                child.kill()  # else leaving this block would wait for it
                raise
            finally:
                self._child = None
        if child.returncode:
            raise OSError(f"exit code {child.returncode}: {said.decode(errors='replace')[-300:]}")
        patch = inspect(aside)
        if not pays(patch, patch.target.bytes):
            aside.write_bytes(b"")
        target = folder / f"{pair.name}-{_sha256(aside)}.patch"
        aside.replace(target)
        self._learn(target)

    def _learn(self, path: Path) -> None:
        parts = _NAME.fullmatch(path.name)
        if parts is None:
            return
        base, target, sha256 = parts.groups()
        size = path.stat().st_size
        owner, model = path.parent.parent.name, path.parent.name
        self._known[owner, model][base, target] = Ready(path, base, target, sha256, size) if size else None


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
