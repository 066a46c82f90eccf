"""Checkpoints: one file after every round, written whole, with all that it takes to go on as if nothing had happened.

The file is safetensors: arrays and bytes, and a JSON header; reading it runs no code. What is random derives from (seed, round) and
needs no place in it. Nodes of this process have their states in it; an instruction that was under way is sent again, from the state
that its owner had when it was first sent.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from cellwright.errors import FederationError
from cellwright.federation.contract import Arrays, DpSgd, Evaluation, Local, NodeState
from cellwright.federation.crew import Crew
from cellwright.federation.data.at_rest import AtRest, tensors
from cellwright.federation.management.records import Topology
from cellwright.federation.pacing import Pacing
from cellwright.federation.progress import Progress
from cellwright.federation.results import Round

_FORMAT = "cellwright federation 1"
_LONGEST_RECORD = 1 << 26  # bytes of one round's record, unpacked
_SCALARS = (
    "learning_rate",
    "rounds_allowed",
    "round",
    "attempt",
    "paused",
    "best_loss",
    "stale",
    "since_cut",
    "short",
    "elapsed_s",
    "energy_j",
)


@dataclass(frozen=True)
class UnderWay:
    """An instruction that was under way."""

    round: int
    local: Local
    start: Arrays
    extra: Arrays
    ago_s: float  # since it was sent
    judging: bool = False  # whether these weights are being judged by it as well


@dataclass
class Saved:
    """What a checkpoint holds."""

    progress: Progress
    crew: Crew
    pacing: Pacing
    rule: Arrays = field(default_factory=dict)
    mechanisms: list[bytes] = field(default_factory=list)
    auditor: bytes = b""
    nodes: dict[str, NodeState] = field(default_factory=dict)
    under_way: dict[str, UnderWay] = field(default_factory=dict)


class Checkpoint:
    """One file. Records of rounds that ended do not change, so each is packed once."""

    def __init__(self, path: Path, identity: str, at_rest: AtRest | None = None) -> None:
        """`identity`: of the training; a checkpoint of another one is refused. `at_rest`: how it lies on the disk; None: open."""
        self.path, self._at_rest = path, at_rest or AtRest()
        self._identity = sha256(identity.encode()).hexdigest()
        self._packed: list[np.ndarray] = []

    def save(self, saved: Saved) -> None:
        """Write whole or not at all.

        Raises:
            WorkspaceError: the disk is full or the folder is not writable.
        """
        from safetensors.numpy import save

        for record in saved.progress.records[len(self._packed) :]:
            self._packed.append(_bytes(zlib.compress(record.model_dump_json().encode(), 1)))
        arrays = dict(_arrays(saved))
        arrays |= {_key("record", f"{i:06}"): packed for i, packed in enumerate(self._packed)}
        header = {"format": _FORMAT, "identity": self._identity, "content": json.dumps(_header(saved))}
        content = save({name: _whole(array) for name, array in arrays.items()}, header)
        self._at_rest.write(self.path, content, mode=0o600)  # owners' own states

    def load(self) -> Saved | None:
        """What `save` wrote; None: there is none.

        Raises:
            FederationError: damaged, or of another training.
        """
        from safetensors import SafetensorError

        if not self.path.is_file():
            return None
        try:
            header, found = tensors(self._at_rest.read(self.path))
            if header.get("format") == _FORMAT and header.get("identity") != self._identity:
                raise FederationError(
                    f"{self.path} is the checkpoint of another training (task, rule, owners' settings or privacy differ); "
                    "use another folder, or delete it to start anew"
                )
            arrays = {tuple(json.loads(name)): array for name, array in found.items()}
            saved = _saved(json.loads(header["content"]), arrays)
        except (SafetensorError, KeyError, TypeError, ValueError, zlib.error) as error:
            raise FederationError(f"{self.path} is damaged ({type(error).__name__}: {error}); delete it to start anew") from error
        self._packed = [arrays[name] for name in sorted(arrays) if name[0] == "record"]
        return saved


def _key(*path: str) -> str:
    """A tensor's name; JSON, since nodes and parameters may be called anything."""
    return json.dumps(path)


def _bytes(content: bytes) -> np.ndarray:
    return np.frombuffer(content, np.uint8)


def _whole(array: np.ndarray) -> np.ndarray:
    """In C order and native byte order, which is all that the format knows; 0-d stays 0-d."""
    return np.array(array, dtype=array.dtype.newbyteorder("="), order="C", copy=None)


def _arrays(saved: Saved) -> Iterator[tuple[str, np.ndarray]]:
    p = saved.progress
    groups: list[tuple[tuple[str, ...], Arrays]] = [
        (("current",), p.current),
        (("rule",), saved.rule),
        (("best_rule",), p.best_rule),
    ]
    if p.best is not p.current:
        groups.append((("best",), p.best))
    groups += [(("node", node), state.arrays) for node, state in saved.nodes.items()]
    for start in _starts(saved.under_way):
        groups += [(("start", str(start.number)), start.arrays)]
    groups += [(("extra", owner), sent.extra) for owner, sent in saved.under_way.items()]
    for path, arrays in groups:
        yield from ((_key(*path, name), array) for name, array in arrays.items())
    for node, state in saved.nodes.items():
        yield from ((_key("blob", node, name), _bytes(blob)) for name, blob in state.blobs.items())
    yield from ((_key("mechanism", f"{i:03}"), _bytes(state)) for i, state in enumerate(saved.mechanisms))
    yield _key("auditor"), _bytes(saved.auditor)


@dataclass(frozen=True)
class _Start:
    number: int
    arrays: Arrays


def _starts(under_way: Mapping[str, UnderWay]) -> list[_Start]:
    """Weights that instructions under way started from, each once."""
    distinct = {id(sent.start): sent.start for sent in under_way.values()}
    return [_Start(i, arrays) for i, arrays in enumerate(distinct.values())]


def _header(saved: Saved) -> dict[str, Any]:
    p, crew = saved.progress, saved.crew
    numbers = {id(start.arrays): start.number for start in _starts(saved.under_way)}
    return {
        "progress": {name: _number(getattr(p, name)) for name in _SCALARS},
        "names": {"current": list(p.current), "best": list(p.best), "best_is_current": p.best is p.current and bool(p.best)},
        "ended": p.ended,
        "reason": p.reason,
        "latest": {owner: asdict(e) for owner, e in p.latest.items()},
        "examples": p.examples,
        "topology": crew.topology.model_dump(mode="json"),
        "first": crew.first.model_dump(mode="json"),
        "crew": {n: getattr(crew, n) for n in ("layered", "gone", "dropped", "failures", "reliability")}
        | {"empty": sorted(crew.empty)},
        "pacing": saved.pacing.state(),
        "nodes": sorted(saved.nodes),
        "under_way": {
            owner: {
                "round": s.round,
                "ago_s": s.ago_s,
                "judging": s.judging,
                "local": asdict(s.local),
                "start": numbers[id(s.start)],
                "names": list(s.start),
            }
            for owner, s in saved.under_way.items()
        },
    }


def _number(value: float | None) -> float | str | None:
    """JSON knows no infinity; floats keep all their digits in it."""
    return "inf" if value == float("inf") else value


def _saved(content: Mapping[str, Any], arrays: Mapping[tuple[str, ...], np.ndarray]) -> Saved:
    def group(*path: str) -> Arrays:
        return {key[-1]: array for key, array in by_group.get(path, ())}

    by_group: dict[tuple[str, ...], list[tuple[tuple[str, ...], np.ndarray]]] = {}
    for key, array in arrays.items():
        by_group.setdefault(key[:-1], []).append((key, array))
    nodes = {n: NodeState(group("node", n), {k: b.tobytes() for k, b in group("blob", n).items()}) for n in content["nodes"]}
    return Saved(
        progress=_progress(content, group),
        crew=_crew(content),
        pacing=Pacing.restored(content["pacing"]),
        rule=group("rule"),
        mechanisms=[array.tobytes() for _, array in sorted(group("mechanism").items())],
        auditor=arrays[("auditor",)].tobytes(),
        nodes=nodes,
        under_way=_under_way(content["under_way"], group),
    )


def _progress(content: Mapping[str, Any], group: Any) -> Progress:
    names = content["names"]
    current = _ordered(group("current"), names["current"])
    best = current if names["best_is_current"] else _ordered(group("best"), names["best"])
    scalars: dict[str, Any] = {name: float("inf") if value == "inf" else value for name, value in content["progress"].items()}
    return Progress(
        current=current,
        best=best,
        best_rule=group("best_rule"),
        latest={owner: Evaluation(**_tuples(e)) for owner, e in content["latest"].items()},
        examples=dict(content["examples"]),
        records=[_record(array) for _, array in sorted(group("record").items())],
        ended=content["ended"],
        reason=content["reason"],
        **scalars,
    )


def _ordered(arrays: Arrays, names: list[str]) -> Arrays:
    """In the network's own order, which safetensors does not keep."""
    return {name: arrays[name] for name in names}


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    known = {f.name for f in fields(Evaluation)}
    return {name: tuple(v) if isinstance(v, list) else v for name, v in values.items() if name in known}


def _record(packed: np.ndarray) -> Round:
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(packed.tobytes(), _LONGEST_RECORD)
    if unpacker.unconsumed_tail:
        raise ValueError(f"a round's record is longer than {_LONGEST_RECORD} bytes")
    return Round.model_validate_json(text)


def _crew(content: Mapping[str, Any]) -> Crew:
    kept = dict(content["crew"])
    topology, first = (Topology.model_validate(content[name]) for name in ("topology", "first"))
    return Crew(topology, first, **{**kept, "empty": set(kept["empty"])})


def _under_way(content: Mapping[str, Any], group: Any) -> dict[str, UnderWay]:
    starts: dict[int, Arrays] = {}
    out = {}
    for owner, sent in content.items():
        number = sent["start"]
        if number not in starts:
            starts[number] = _ordered(group("start", str(number)), sent["names"])
        local, extra = _local(sent["local"]), group("extra", owner)
        out[owner] = UnderWay(sent["round"], local, starts[number], extra, sent["ago_s"], sent["judging"])
    return out


def _local(values: Mapping[str, Any]) -> Local:
    dp = values["dp_sgd"]
    lists = {name: tuple(v) for name, v in values.items() if isinstance(v, list)}
    return Local(**{**values, **lists, "dp_sgd": DpSgd(**dp) if dp else None})
