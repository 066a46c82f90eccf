"""What follows from a round's errors: the best weights are kept, the rate is halved, the training ends or goes on (M.3387 9.5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cellwright.federation.aggregation._contract import Rule
from cellwright.federation.contract import Arrays
from cellwright.federation.judging import Total
from cellwright.federation.progress import Progress
from cellwright.federation.rounds import Decision, Rounds

UNDECIDED = (
    "the owners' errors are without the noise of the average, so that nothing is decided by them: no patience, no target, no halving; the "
    "last model is kept"
)

Drop = Callable[[Iterable[str], str], str]  # asks nodes no more; says what became of the topology


@dataclass(frozen=True)
class Steering:
    """Does what errors, and quality management, ask for."""

    rule: Rule
    settings: Rounds
    noisy: bool  # noise goes on the average: the owners' errors carry none of the noise that the models do

    def by_errors(self, p: Progress, judged: Total, *, counted: bool) -> str:
        """Patience, `target_mse`, the end of a closed form; says what was decided. Errors without noise decide nothing."""
        if self.noisy:
            if counted:
                p.best = p.current
            p.learning_rate *= self.settings.lr_decay
            return UNDECIDED if p.round == 1 else ""
        s, words = self.settings, ""
        if counted and judged.loss is not None:
            words = p.judge(judged.loss, {} if self.rule.one_model else self._state(), s)
        p.learning_rate *= s.lr_decay
        if s.target_mse is not None and judged.mse is not None and counted and judged.mse <= s.target_mse:
            p.best, p.best_rule = p.current, self._state()
            p.end("target", f"the validation MSE is {judged.mse:.6g}, at most {s.target_mse:g} was asked for")
        if self.rule.closed_form and counted:
            p.end("converged", "a closed form is solved in one round")
        return words

    def follow(self, p: Progress, decision: Decision, drop: Drop) -> list[str]:
        """Do what quality management decided."""
        words = [decision.words]
        p.learning_rate *= decision.rate_factor
        p.rounds_allowed += decision.more_rounds
        if decision.drop:
            words.append(drop(decision.drop, decision.words or "quality management"))
        if decision.stop is not None:
            if decision.stop == "target":  # these weights reached it; those with the lowest loss may not
                p.best, p.best_rule = p.current, self._state()
            p.end(decision.stop, decision.words)
        return words

    def _state(self) -> Arrays:
        """The rule's, as it is now."""
        return {name: array.copy() for name, array in self.rule.state().items()}
