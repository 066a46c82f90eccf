"""A party of vertical federated learning: a Node with features of its own, and, at the active party, the targets.

Kinds it answers, beside those of `psi`:

    vertical_deploy   the settings; says its cadence, its clock and whether it is active
    vertical_begin    fit scalers on the training span, draw fresh weights; says how many windows each span has, and its width
    vertical_step     passive: take the last batch's gradient, send the next batch's embedding
    vertical_learn    active: take all embeddings of a batch, train, send the gradient of each
    vertical_embed    passive: embeddings of some windows of a span, for an evaluation
    vertical_score    active: sums of errors over those windows
    vertical_keep     keep the present weights under an epoch, and as the best if they are
    vertical_back     go back to the weights of an epoch, or to the best

Raw telemetry, scaled telemetry, targets, weights and names of features never leave. Which windows a batch holds follows from (seed,
epoch, step), so no index travels. All memory is in the node's state, and what is kept also in `folder`: a party that was killed
comes back with the weights of the last epoch.

With the coordinator's key it answers nobody else, with one of its own it signs (`kit`); an answer is of the round that was asked, and
tells what it took. Of a message that is refused nothing is taken.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from cellwright.data.calendar import NAMES
from cellwright.data.scaler import fit_scaler
from cellwright.data.windows import Windows
from cellwright.errors import Refused, UnknownName
from cellwright.federation.alignment import keeping, psi
from cellwright.federation.alignment.party_checks import about_half, checked, embeddings, run_of, window_index
from cellwright.federation.alignment.rows import SPANS, Cut, Rows, cut, ids, rows_of, rows_until
from cellwright.federation.alignment.vertical_spec import Vertical
from cellwright.federation.contract import NodeState, Parcel
from cellwright.federation.messages import usage_values
from cellwright.federation.node_meter import NodeMeter
from cellwright.federation.owner_kit import OwnerKit
from cellwright.federation.signed import check_sender, signed_reply
from cellwright.panel import Panel
from models._contract import Problem

if TYPE_CHECKING:
    from torch import Tensor

    from cellwright.data.windows import Raw
    from cellwright.federation.alignment.halves import Half, Trained
    from models._contract import Batch

SETTINGS, REQUEST = "vertical/settings", "vertical/request"
PENDING = "vertical/pending"  # epoch and step whose gradient is still to come


@dataclass(frozen=True)
class _AtWork:
    """What one run works with."""

    trained: Trained
    spans: Cut
    rows: Rows

    @property
    def half(self) -> Half:
        return self.trained.half


class VerticalParty:
    """Holds a panel; active if it names targets. `features`: what its half sees besides; by default all that the panel has.

    `kit`: the keys it signs and checks with, and the energy that it counts by; by default nothing is signed.

    `folder`: where kept weights lie, beside the node's state. `noise_seed`: of the noise on embeddings; by default it is drawn
    from the system, since noise that can be computed again can be taken off again.

    Raises:
        UnknownName: a feature or target that the panel lacks.
    """

    def __init__(
        self,
        name: str,
        panel: Panel,
        *,
        targets: Sequence[str] = (),
        features: Sequence[str] | None = None,
        kit: OwnerKit | None = None,
        folder: Path | None = None,
        noise_seed: int | None = None,
    ) -> None:
        self.name, self.panel, self.targets, self.folder = name, panel, tuple(targets), folder
        self.kit = kit or OwnerKit()
        self._meter = NodeMeter(self.kit.energy)
        has = [f.name for f in panel.schema.features]
        wanted = (*self.targets, *(has if features is None else features))
        for feature in wanted:
            if feature not in has:
                raise UnknownName(f"feature of party '{name}'", feature, has)
        self.features = tuple(dict.fromkeys(wanted))
        self._noise = np.random.default_rng(secrets.randbits(128) if noise_seed is None else noise_seed)
        self._made: tuple[str, Windows, Rows] | None = None  # by settings: nothing here must outlive the process
        self._order: tuple[tuple[int, int, int], np.ndarray] | None = None
        self._work: tuple[tuple[object, ...], _AtWork] | None = None

    @property
    def active(self) -> bool:
        """Whether it holds the targets."""
        return bool(self.targets)

    def answer(self, kind: str, parcel: Parcel, state: NodeState) -> Parcel:
        """Answer one message. See the module.

        Raises:
            Refused: a message that breaks the protocol, or is not the coordinator's own and new.
            FederationError, DataError: its data do not fit the settings.
        """
        mark, request = self._meter.mark(), self._request(kind, parcel, state)
        check_sender(self.kit, kind, parcel, state, request)
        reply = self._answered(kind, parcel, state)
        told = {name: parcel.values[name] for name in ("round",) if name in parcel.values}
        told |= usage_values(self._meter.usage(mark))
        return signed_reply(self.kit, self.name, kind, replace(reply, values={**reply.values, **told}), state, request)

    def _request(self, kind: str, parcel: Parcel, state: NodeState) -> str:
        """The request that a message must be of: that of the last deployment, which says its own."""
        if kind == "vertical_deploy":
            return str(parcel.values.get("request", ""))
        return state.blobs.get(REQUEST, b"").decode()

    def _answered(self, kind: str, parcel: Parcel, state: NodeState) -> Parcel:
        if kind == "vertical_deploy":
            return self._deploy(parcel, state)
        settings = self._settings(state)
        if kind in psi.KINDS:
            return psi.answer(kind, parcel, state, lambda: self._ids(settings))
        answers: dict[str, Callable[[Vertical, Parcel, NodeState], Parcel]] = {
            "vertical_begin": self._begin,
            "vertical_step": self._step,
            "vertical_learn": self._learn,
            "vertical_embed": self._embed,
            "vertical_score": self._score,
            "vertical_keep": self._keep,
            "vertical_back": self._back,
        }
        if kind not in answers:
            raise Refused(f"a party of vertical learning answers {', '.join((*answers, *psi.KINDS))}; found '{kind}'")
        if self.active and kind in ("vertical_step", "vertical_embed"):
            raise Refused(f"party '{self.name}' holds the targets; '{kind}' is for passive parties")
        if not self.active and kind in ("vertical_learn", "vertical_score"):
            raise Refused(f"party '{self.name}' holds no targets; '{kind}' is for the active party")
        return answers[kind](settings, parcel, state)

    # ---- settings and rows

    def _deploy(self, parcel: Parcel, state: NodeState) -> Parcel:
        try:
            settings = Vertical.model_validate_json(str(parcel.values["settings"]))
        except (KeyError, ValueError) as error:
            raise Refused(f"the message deploys no settings that can be read ({error}); all must run the same version") from None
        self._windows(settings)
        state.blobs[SETTINGS] = settings.model_dump_json().encode()
        state.blobs[REQUEST] = str(parcel.values.get("request", "")).encode()
        schema = self.panel.schema
        return Parcel(values={"cadence_s": schema.cadence_s, "clock": schema.clock, "active": self.active})

    def _settings(self, state: NodeState) -> Vertical:
        if SETTINGS not in state.blobs:
            raise Refused(f"party '{self.name}' was not told the settings yet; send 'vertical_deploy' first")
        return Vertical.model_validate_json(state.blobs[SETTINGS])

    def _windows(self, settings: Vertical) -> tuple[Windows, Rows]:
        key = settings.model_dump_json()
        if self._made is None or self._made[0] != key:
            windows = Windows(self.panel, self._problem(settings))
            self._made = key, windows, rows_of(windows, settings.align)
        return self._made[1], self._made[2]

    def _ids(self, settings: Vertical) -> list[bytes]:
        windows, rows = self._windows(settings)
        return ids(rows, windows, settings.align)

    def _problem(self, settings: Vertical) -> Problem:
        """A passive party forecasts nothing: its first feature stands where a target must."""
        schema = self.panel.schema
        alone = settings.align == "site_time" or len(schema.sites) == 1
        nodes = 1 if alone else len(schema.sites)
        return Problem(
            history=settings.history,
            horizon=settings.horizon,
            cadence_s=schema.cadence_s,
            inputs="site" if alone else "all",
            nodes=nodes,
            outputs=nodes,
            features=self.features,
            targets=self.targets or self.features[:1],
            known=NAMES if settings.calendar and self.active else (),
            season=max(1, round(86_400 / schema.cadence_s)),
        )

    # ---- training

    def _begin(self, settings: Vertical, parcel: Parcel, state: NodeState) -> Parcel:
        run = run_of(parcel)
        state.blobs.pop(PENDING, None)
        others = {n.removeprefix("width/"): int(v) for n, v in parcel.values.items() if n.startswith("width/")}
        state.blobs[f"vertical/{run}/begun"] = json.dumps({"others": others, "aligned": bool(parcel.values["aligned"])}).encode()
        self._work = None  # one that has trained before holds no fresh weights
        work = self._at_work(settings, run, state)
        keeping.put(state, run, "now", work.trained.arrays())
        return Parcel(values={"width": work.half.width, **{name: len(work.spans.span(name)) for name in SPANS}})

    def _at_work(self, settings: Vertical, run: str, state: NodeState) -> _AtWork:
        """The half (its weights may be anybody's), the spans and the aligned rows."""
        if f"vertical/{run}/begun" not in state.blobs:
            raise Refused(f"party '{self.name}' has not begun run '{run}'; send 'vertical_begin' first")
        begun = json.loads(state.blobs[f"vertical/{run}/begun"])
        windows, rows = self._windows(settings)
        member = psi.members(state) if begun["aligned"] else np.arange(len(rows))
        key = settings.model_dump_json(), json.dumps(begun), member.tobytes()
        if self._work is None or self._work[0] != key:
            from cellwright.federation.alignment.halves import Trained

            own = rows.some(member)
            spans = cut(own, train=settings.train, validation=settings.validation, reach_ms=self._reach_ms(settings))
            half = self._new_half(settings, windows, spans, begun["others"] if self.active else None)
            self._work = key, _AtWork(Trained(half, settings.weight_decay), spans, own)
        return self._work[1]

    def _now(self, settings: Vertical, parcel: Parcel, state: NodeState) -> _AtWork:
        """The same, with the weights of now."""
        work = self._at_work(settings, run_of(parcel), state)
        work.trained.load(keeping.get(state, run_of(parcel), "now"))
        return work

    def _new_half(self, settings: Vertical, windows: Windows, spans: Cut, others: dict[str, int] | None) -> Half:
        from cellwright.federation.alignment.halves import Half
        from cellwright.training.batches import derived_seed

        until = rows_until(windows, spans.train_until_ms)
        scaler = fit_scaler(self.panel, windows.problem, settings.scaler, until, settings.clip)
        seed = derived_seed(settings.seed, *self.name.encode())
        return Half(
            about_half(settings, windows.problem, passive=not self.active, sites=self.panel.schema.sites), scaler, seed, others
        )

    def _reach_ms(self, settings: Vertical) -> int:
        return round(settings.horizon * self.panel.schema.cadence_s * 1000)

    def _index(self, settings: Vertical, spans: Cut, epoch: int, step: int) -> np.ndarray:
        """Positions of a training batch, the same at every party."""
        key = settings.seed, epoch, len(spans.train)
        if self._order is None or self._order[0] != key:
            from cellwright.training.batches import derived_seed

            order = np.random.default_rng(derived_seed(settings.seed, 1, epoch)).permutation(len(spans.train))
            self._order = key, order
        found = spans.train[self._order[1][step * settings.batch : (step + 1) * settings.batch]]
        if not len(found):
            raise Refused(f"epoch {epoch} has no step {step}: its {len(spans.train)} windows make fewer batches")
        return cast(np.ndarray, found)

    def _step(self, settings: Vertical, parcel: Parcel, state: NodeState) -> Parcel:
        work = self._now(settings, parcel, state)
        if "gradient" in parcel.arrays:
            self._descend(settings, parcel, state, work)
            keeping.put(state, run_of(parcel), "now", work.trained.arrays())
        if "step" not in parcel.values:
            return Parcel()
        epoch, step = int(parcel.values["epoch"]), int(parcel.values["step"])
        state.blobs[PENDING] = json.dumps([epoch, step]).encode()
        index = self._index(settings, work.spans, epoch, step)
        return Parcel(arrays={"h": self._embedding(settings, work, index, (epoch, step), train=True)})

    def _descend(self, settings: Vertical, parcel: Parcel, state: NodeState, work: _AtWork) -> None:
        """The embedding once more, this time with what its gradient needs, and a step along it."""
        import torch

        pending = state.blobs.pop(PENDING, None)
        if pending is None:
            raise Refused(f"party '{self.name}' was sent a gradient, but no embedding of its awaits one")
        epoch, step = json.loads(pending)
        index = self._index(settings, work.spans, epoch, step)
        gradient = checked(parcel.arrays["gradient"], (len(index), work.half.width), "the gradient of its embedding")
        work.half.train()
        batch, _, _ = self._batch(settings, work, index)
        h = work.half.embed(batch, epoch, step)["h"]
        torch.autograd.backward(h, torch.from_numpy(gradient))
        work.trained.step(float(parcel.values["learning_rate"]), settings.gradient_clip)

    def _learn(self, settings: Vertical, parcel: Parcel, state: NodeState) -> Parcel:
        import torch

        from cellwright.federation.alignment.halves import loss_of

        epoch, step = int(parcel.values["epoch"]), int(parcel.values["step"])
        work = self._now(settings, parcel, state)
        index = self._index(settings, work.spans, epoch, step)
        others = {name: torch.from_numpy(h).requires_grad_() for name, h in embeddings(parcel, work.half, len(index)).items()}
        work.half.train()
        batch, _, _ = self._batch(settings, work, index)
        total, count = loss_of(settings.loss, work.half.forecast(work.half.embed(batch, epoch, step), others), batch)
        if count:
            (total / count).backward()  # type: ignore[no-untyped-call]
            work.trained.step(float(parcel.values["learning_rate"]), settings.gradient_clip)
            keeping.put(state, run_of(parcel), "now", work.trained.arrays())
        gradients = {n: np.zeros(h.shape, np.float32) if h.grad is None else h.grad.numpy() for n, h in others.items()}
        return Parcel(
            arrays={f"gradient/{name}": g for name, g in gradients.items()},
            values={"loss": float(total.detach()), "count": int(count)},
        )

    # ---- evaluation

    def _embed(self, settings: Vertical, parcel: Parcel, state: NodeState) -> Parcel:
        work = self._now(settings, parcel, state)
        return Parcel(arrays={"h": self._embedding(settings, work, window_index(parcel, work.spans), (0, 0), train=False)})

    def _score(self, settings: Vertical, parcel: Parcel, state: NodeState) -> Parcel:
        import torch

        from cellwright.federation.alignment.halves import errors_of, loss_of

        work = self._now(settings, parcel, state)
        work.half.eval()
        index = window_index(parcel, work.spans)
        others = {name: torch.from_numpy(h) for name, h in embeddings(parcel, work.half, len(index)).items()}
        with torch.no_grad():
            batch, raw, site = self._batch(settings, work, index)
            forecast = work.half.forecast(work.half.embed(batch, 0, 0), others)
            absolute, squared, count = errors_of(work.half, forecast, raw, site)
            loss, _ = loss_of(settings.loss, forecast, batch)
        return Parcel(values={"absolute": absolute, "squared": squared, "count": count, "loss": float(loss)})

    def _batch(self, settings: Vertical, work: _AtWork, index: np.ndarray) -> tuple[Batch, Raw, Tensor]:
        some = work.rows.some(index)
        raw = self._windows(settings)[0].raw(some.origins, some.sites)
        batch, site = work.half.batch(raw, some.sites)
        return batch, raw, site

    def _embedding(
        self, settings: Vertical, work: _AtWork, index: np.ndarray, moment: tuple[int, int], *, train: bool
    ) -> np.ndarray:
        """(batch, width) float32 as it leaves: clipped and noisy, where that is asked for."""
        import torch

        work.half.train(train)
        with torch.no_grad():
            batch, _, _ = self._batch(settings, work, index)
            h: np.ndarray = work.half.embed(batch, *moment)["h"].numpy()
        if settings.embedding_noise and settings.embedding_clip is not None:
            deviation = settings.embedding_noise * settings.embedding_clip
            h = (h + self._noise.normal(0.0, deviation, h.shape)).astype(np.float32)
        return np.ascontiguousarray(h)

    # ---- what is kept

    def _keep(self, settings: Vertical, parcel: Parcel, state: NodeState) -> Parcel:
        run, epoch = run_of(parcel), int(parcel.values["epoch"])
        now = keeping.get(state, run, "now")
        keeping.keep(state, self.folder, run, f"epoch-{epoch % 2}", epoch, now)
        if parcel.values["best"]:
            keeping.keep(state, self.folder, run, "best", epoch, now)
        return Parcel()

    def _back(self, settings: Vertical, parcel: Parcel, state: NodeState) -> Parcel:
        run, epoch = run_of(parcel), int(parcel.values["epoch"])
        slot = "best" if parcel.values["best"] else f"epoch-{epoch % 2}"
        state.blobs.pop(PENDING, None)
        keeping.put(state, run, "now", keeping.kept(state, self.folder, run, slot, epoch, self.name))
        return Parcel()
