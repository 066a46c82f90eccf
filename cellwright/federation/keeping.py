"""Keeps a training in its checkpoint, and takes it up again from there; checkpoint.py has the file's form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cellwright.federation.checkpoint import Checkpoint, Saved, UnderWay
from cellwright.federation.contract import NodeState, Task
from cellwright.federation.crew import Crew
from cellwright.federation.data.at_rest import AtRest
from cellwright.federation.gathering import Gatherer, Sent
from cellwright.federation.judging import Judge
from cellwright.federation.privacy._contract import Mechanism
from cellwright.federation.progress import Progress
from cellwright.federation.rounds import Rounds, Stateful


class Keeper:
    """Writes the checkpoint after each round; without a path it keeps nothing."""

    def __init__(
        self,
        path: Path | None,
        task: Task,
        settings: Rounds,
        gatherer: Gatherer,
        judge: Judge,
        mechanisms: Sequence[Mechanism],
        at_rest: AtRest | None = None,
    ) -> None:
        """`at_rest`: how the file lies on the disk; None: open."""
        self.gatherer, self.judge, self.mechanisms = gatherer, judge, tuple(mechanisms)
        self.auditor, self.channel = gatherer.post.auditor, gatherer.post.channel
        gatherer.remember = path is not None
        self._file = None if path is None else Checkpoint(path, self._identity(task, settings), at_rest)
        self._states: dict[str, NodeState] = {}  # of the nodes, as they were last kept

    def load(self) -> Saved | None:
        """What was kept last; None: nothing was.

        Raises:
            FederationError: the checkpoint is damaged, or of another training.
        """
        return self._file.load() if self._file else None

    def keep(self, progress: Progress, crew: Crew) -> None:
        """Write the checkpoint.

        Raises:
            WorkspaceError: the disk is full or the folder is not writable.
        """
        if self._file is None:
            return
        self._states = self._of_nodes()
        saved = Saved(progress, crew, self.gatherer.pacing, self.gatherer.rule.state(), [m.state() for m in self.mechanisms])
        saved.auditor = self.auditor.state() if self.auditor is not None else b""
        saved.nodes = self._states
        now, judging = self.channel.now(), set(self.judge.asked())
        saved.under_way = {
            owner: UnderWay(s.round, s.local, s.start, s.extra, now - s.at, owner in judging)
            for owner, s in self.gatherer.flight.items()
        }
        self._file.save(saved)

    def restore(self, saved: Saved) -> None:
        """The coordinator's own parts, as they were."""
        self.gatherer.rule.restore(saved.rule)
        for mechanism, state in zip(self.mechanisms, saved.mechanisms, strict=True):
            mechanism.restore(state)
        if self.auditor is not None and saved.auditor:
            self.auditor.restore(saved.auditor)
        self.gatherer.pacing = saved.pacing

    def resume(self, saved: Saved, crew: Crew) -> None:
        """The nodes' states, and what was under way and for how long, as they were."""
        if saved.nodes and isinstance(self.channel, Stateful):
            self.channel.restore(saved.nodes)
        self._states = saved.nodes
        here, round_ = set(crew.peers()), saved.progress.round
        under_way = {owner: sent for owner, sent in saved.under_way.items() if owner in here}
        longest_s, began = max((sent.ago_s for sent in under_way.values()), default=0.0), self.channel.now()
        for ago_s in sorted({sent.ago_s for sent in under_way.values()}, reverse=True):
            group = {owner: sent for owner, sent in under_way.items() if sent.ago_s == ago_s}
            self.gatherer.wait(began + longest_s - ago_s)
            self.judge.ask({owner: sent.start for owner, sent in group.items() if sent.judging}, round_)
            self.gatherer.again({o: Sent(s.round, s.local, s.start, s.extra) for o, s in group.items()}, round_)
        self.gatherer.wait(began + longest_s)

    def _of_nodes(self) -> dict[str, NodeState]:
        """The nodes' states; of one that is at work the one it had before, since it will be asked again from there."""
        nodes = self.channel.states() if isinstance(self.channel, Stateful) else {}
        then = {**self._states, **self.gatherer.before}
        for owner in self.gatherer.flight:
            nodes.pop(owner, None)
            if owner in then:
                nodes[owner] = then[owner]
        return nodes

    def _identity(self, task: Task, settings: Rounds) -> str:
        """What a checkpoint must have been made with to be gone on from."""
        parts: tuple[Any, ...] = (self.gatherer.rule, self.gatherer.codec, *self.mechanisms)
        kinds = [[type(part).__module__, repr(part.options)] for part in parts]
        return json.dumps([task.model_dump(mode="json"), kinds, settings.seed, settings.fraction, asdict(settings.local)])
