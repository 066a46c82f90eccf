"""Drives one rollout: begins it, asks the edges, lets the rules decide, and brings what they decide into effect.

The state is saved before it takes effect, and taking effect can be repeated: a controller that is killed between any two lines goes on
where it was. An edge that cannot be asked is named and waited for: without it nothing is promoted, but what the others have seen is
enough to take a challenger back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from cellwright.errors import HubError, HubRefused, WrongUse
from cellwright.lifecycle.rollout.record import Files, Registration, Rolling
from cellwright.lifecycle.rollout.rules import Event, State, advance, armed, begun, ended, judged, noted, said
from cellwright.lifecycle.rollout.targets import Target, need_champion
from cellwright.lifecycle.rollout.watching import Watch
from cellwright.params import Rollout

Tell = Callable[[Rolling, Event], None]
Follow = Callable[[Rolling], None]


@dataclass(frozen=True)
class Hands:
    """What a controller acts with. `follow` is called when a rollout has ended and took effect, again after a crash; `tell`, of each
    event; `clock`: seconds since 1970."""

    target: Target
    follow: Follow = lambda rolling: None
    tell: Tell = lambda rolling, event: None
    clock: Callable[[], float] = time.time
    pause: Callable[[float], None] = time.sleep


def effective(params: Rollout) -> Rollout:
    """The parameters as the rules see them: blue/green is one stage in which the challenger computes everything and answers nothing."""
    if params.mode != "blue_green":
        return params
    return params.model_copy(update={"stages": (0.0,), "shadow": 1.0, "sites": ()})


def begin(files: Files, challenger: str, params: Rollout, hands: Hands, registration: Registration | None = None) -> Rolling:
    """Begin a rollout, or find the one of this challenger that is under way. It takes effect with the controller's first step.

    Raises:
        WrongUse: another rollout of this model is under way, or the parameters watch nothing.
        BundleError: the challenger is not there or in use already, or there is nothing to replace.
        WorkspaceError: a controller drives it at this moment.
    """
    armed(params)
    with files.held():
        if files.document.is_file() and not (now := files.read()).over:
            if now.state.challenger != challenger:
                raise WrongUse(
                    f"a rollout of {files.model} {now.state.challenger} is under way; decide it first with "
                    f"`cellwright rollout promote|rollback {files.model}`"
                )
            return now
        return _begun(files, challenger, effective(params), hands, registration).save(files.document)


def _begun(files: Files, challenger: str, params: Rollout, hands: Hands, registration: Registration | None) -> Rolling:
    champion = need_champion(hands.target, files.model)
    if champion == challenger:
        raise WrongUse(f"{files.model} {challenger} is in use already: there is nothing to roll out")
    digest = hands.target.digest(files.model, challenger)
    state = begun(files.model, champion, challenger, params, hands.clock())
    if params.mode == "direct":
        state = ended(state, "promoted", "replaced directly, as rollout.mode says", hands.clock())
    files.keep_evidence(())
    files.granted()
    return Rolling(state=state, params=params, digest=digest, target=hands.target.kind, registration=registration)


def drive(files: Files, hands: Hands, *, on_start: Callable[[Rolling], None] = lambda rolling: None) -> Rolling:
    """Drive a rollout until nothing is left to do; returns how it ended.

    Raises:
        WorkspaceError: another controller drives it.
        UnknownName: there is none.
        CellwrightError: it can never take effect: a version is gone, or another has published over it.
    """
    with files.held():
        controller = Controller(files, hands)
        try:
            on_start(controller.rolling)
            while not controller.step().over:
                hands.pause(controller.rolling.params.poll_s)
        finally:
            controller.close()
    return controller.rolling


class Controller:
    """One rollout under way; whoever makes it holds its lock."""

    def __init__(self, files: Files, hands: Hands) -> None:
        self._files, self._hands = files, hands
        self.rolling = files.read()
        self._armed = armed(self.rolling.params)
        self._watch = Watch(tuple(e for e in files.evidence() if e.since_s))

    def close(self) -> None:
        """Close the connections to the edges."""
        self._watch.close()

    def step(self) -> Rolling:
        """Take effect, ask, decide: once."""
        self._granted()
        if not self.rolling.applied and not self._applied():
            return self.rolling
        if self.rolling.state.outcome == "running":
            self._judge()
            if not self.rolling.applied:  # what was decided takes effect at once
                self._applied()
        elif self.rolling.warm_until_s is not None and self._hands.clock() >= self.rolling.warm_until_s:
            state = noted(self.rolling.state, f"{self.rolling.state.champion} is kept warm no longer", self._hands.clock())
            self._keep(state, warm_until_s=None, applied=False)
            self._applied()
        return self.rolling

    def decide(self, promoted: bool, why: str) -> Rolling:
        """A person's decision."""
        self._keep(ended(self.rolling.state, "promoted" if promoted else "rolled_back", why, self._hands.clock()))
        self._applied()
        return self.rolling

    def _granted(self) -> None:
        wish = self._files.wished()
        if wish is None:
            return
        if wish != self.rolling.state.outcome:
            self.decide(wish == "promoted", "decided by hand")
        self._files.granted()

    def _judge(self) -> None:
        rolling = self.rolling
        waiting = self._ask()
        now_s, seen, told = self._hands.clock(), self._watch.seen, rolling.state
        for name in sorted(set(waiting) - set(rolling.waiting)):
            told = noted(told, f"waiting for {name}: {waiting[name]}", now_s)
        for name in sorted(set(rolling.waiting) - set(waiting)):
            told = noted(told, f"{name} is there", now_s)
        after = advance(told, seen, self._armed, rolling.params, now_s)
        if waiting and after.outcome != "rolled_back":
            after = told  # what an edge that is silent has seen may be what speaks against it
        self._keep(after, waiting=waiting, said=said(judged(seen, self._armed, rolling.params)))

    def _ask(self) -> dict[str, str]:
        try:
            edges, headers = self._hands.target.edges(self.rolling), self._hands.target.headers(self.rolling)
        except HubRefused:
            raise
        except HubError as error:
            return {"hub": str(error)}
        state = self.rolling.state
        return self._watch.poll(edges, headers, state.model, lambda found: self._hands.target.believes(found, state))

    def _keep(self, state: State, **changes: object) -> None:
        """Save a state (and other `changes`), and tell of its new events."""
        before = self.rolling
        if (state.weight, state.outcome) != (before.state.weight, before.state.outcome):
            changes["applied"] = False
        if state.outcome != before.state.outcome:
            changes["warm_until_s"] = self._warm_until(state)
        self.rolling = before.model_copy(update={"state": state, **changes}).save(self._files.document)
        new = state.events[len(before.state.events) :]
        if new:
            self._files.keep_evidence(self._watch.seen)
        for event in new:
            self._hands.tell(self.rolling, event)

    def _warm_until(self, state: State) -> float | None:
        params = self.rolling.params
        warm = state.outcome == "promoted" and params.mode == "blue_green" and params.keep_warm_s > 0
        return self._hands.clock() + params.keep_warm_s if warm else None

    def _applied(self) -> bool:
        """Whether the state is in effect now; a hub that cannot be reached is named and waited for."""
        try:
            self._hands.target.apply(self.rolling)
            if self.rolling.state.outcome != "running":
                self._hands.follow(self.rolling)
        except HubRefused:
            raise
        except HubError as error:
            if "hub" not in self.rolling.waiting:
                state = noted(self.rolling.state, f"waiting for hub: {error}", self._hands.clock())
                self._keep(state, waiting={**self.rolling.waiting, "hub": str(error)})
            return False
        self._keep(self.rolling.state, applied=True, waiting={k: v for k, v in self.rolling.waiting.items() if k != "hub"})
        return True


def decide(files: Files, hands: Hands, *, promoted: bool, why: str = "decided by hand") -> Rolling:
    """Promote or take back now, whatever the guards say; while a controller runs, it does it with its next look.

    Raises:
        UnknownName: there is no rollout of this model.
        WorkspaceError: the controller that runs did not do it in time.
    """
    from cellwright.errors import WorkspaceError

    wanted = "promoted" if promoted else "rolled_back"
    if files.read().state.outcome == wanted:
        return files.read()
    try:
        with files.held():
            controller = Controller(files, hands)
            try:
                return controller.decide(promoted, why)
            finally:
                controller.close()
    except WorkspaceError:
        files.wish("promoted" if promoted else "rolled_back")
    until = time.monotonic() + 2 * files.read().params.poll_s + 30
    while time.monotonic() < until:
        if (now := files.read()).state.outcome == wanted and now.applied:
            return now
        time.sleep(0.05)
    raise WorkspaceError(f"the controller of {files.model} has not carried out the decision yet; it will with its next look")
