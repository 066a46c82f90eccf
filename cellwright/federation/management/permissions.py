"""Who may do what (M.3387 8.2): permissions by security rules, from the security and the reliability of a node.

Rules, by the names that refusals give: `known`, `blocked`, `role`, `operation`, `alive`, `security`, `reliability`, `key`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError

from cellwright.errors import ParamsError
from cellwright.federation.contract import Role, Spec
from cellwright.federation.management.records import Grant, Name, NodeProperties, NodeStatus, Operation
from cellwright.federation.management.refusals import NotAllowed


class RoleRule(Spec):
    """What a node must offer to play a role, and what it may do then."""

    security: Annotated[int, Field(ge=0, le=5)]  # least assurance level
    reliability: Annotated[float, Field(ge=0, le=1)]  # least share of messages in order and in time
    operations: tuple[Operation, ...]


class SecurityRules(Spec):
    """The security rules of an FMLMS. Whoever sees the updates of all must be trusted more than one who sends its own."""

    coordinator: RoleRule = RoleRule(security=2, reliability=0.8, operations=("aggregate", "read_metadata"))
    auditor: RoleRule = RoleRule(security=2, reliability=0.8, operations=("audit", "read_metadata"))
    data_owner: RoleRule = RoleRule(security=1, reliability=0.5, operations=("train",))
    need_key: bool = False  # whether a node without a public key is refused
    blocked: tuple[Name, ...] = ()  # nodes that take no part, whatever they offer

    def of(self, role: Role) -> RoleRule:
        """The rule for a role."""
        return {"coordinator": self.coordinator, "auditor": self.auditor, "data_owner": self.data_owner}[role]


def rules_from(source: Path | dict[str, Any] | None) -> SecurityRules:
    """Security rules from a YAML file, a section of the parameters, or (None) the defaults.

    Raises:
        ParamsError: the file cannot be read, holds an unknown rule, or a value that is out of range.
    """
    try:
        raw = yaml.safe_load(source.read_text()) if isinstance(source, Path) else source
        return SecurityRules.model_validate(raw or {})
    except (OSError, yaml.YAMLError) as error:
        raise ParamsError(f"cannot read the security rules {source}: {error}") from error
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ParamsError(f"security rules: {found}. Known rules: {', '.join(SecurityRules.model_fields)}") from None


def broken(node: NodeProperties, status: NodeStatus | None, role: Role, rules: SecurityRules) -> tuple[tuple[str, str], ...]:
    """Every rule that keeps a node from playing a role: (name of the rule, what was expected and found); empty: none."""
    rule = rules.of(role)
    reliability = status.reliability if status else 0.0
    checks = (
        ("blocked", node.name in rules.blocked, "it is on the list of blocked nodes"),
        ("role", role not in node.roles, f"it may be {_either(node.roles)}, not {_title(role)}"),
        ("alive", status is None or not status.alive, _absence(status)),
        (
            "security",
            node.security < rule.security,
            f"security level {node.security}, at least {rule.security} for {_title(role)}",
        ),
        (
            "reliability",
            reliability < rule.reliability,
            f"reliability {reliability:.2f}, at least {rule.reliability:g} for {_title(role)}",
        ),
        ("key", rules.need_key and not node.public_key, "it has given no public key"),
    )
    return tuple((name, words) for name, fails, words in checks if fails)


def authorise(
    node: NodeProperties, status: NodeStatus | None, role: Role, operation: Operation, request: str, rules: SecurityRules
) -> Grant:
    """Let a node do one thing for a request, in its role there.

    Raises:
        NotAllowed: a rule forbids it; the message begins with the rule's name.
    """
    if operation not in rules.of(role).operations:
        allowed = ", ".join(rules.of(role).operations) or "nothing"
        raise NotAllowed(f"rule 'operation': {node.name} is {_title(role)}, which may do {allowed}, not {operation}")
    return grant(node, status, role, request, rules)


def grant(node: NodeProperties, status: NodeStatus | None, role: Role, request: str, rules: SecurityRules) -> Grant:
    """All that a role may do, to a node that is fit for it.

    Raises:
        NotAllowed: a rule forbids it; the message begins with the rule's name.
    """
    for name, words in broken(node, status, role, rules):
        raise NotAllowed(f"rule '{name}': {node.name}: {words}; the operator sets levels, roles and rules")
    return Grant(node=node.name, request=request, role=role, operations=rules.of(role).operations)


def _title(role: Role) -> str:
    return {"coordinator": "a coordinator", "auditor": "an auditor", "data_owner": "a data owner"}[role]


def _either(roles: tuple[Role, ...]) -> str:
    return " or ".join(_title(role) for role in roles) or "in no role"


def _absence(status: NodeStatus | None) -> str:
    if status is None:
        return "it has never reported its status"
    return f"it is not alive{f' ({status.reason})' if status.reason else ''}"
