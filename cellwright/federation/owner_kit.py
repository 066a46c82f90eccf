"""What a data owner brings to a federation, and what it takes over from the task that is deployed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cellwright.errors import CellwrightError, Refused
from cellwright.federation.contract import Instruction, Value
from cellwright.federation.data.metadata import Disclosure
from cellwright.params import Energy

if TYPE_CHECKING:
    from cellwright.federation.audit.signing import Signer
    from cellwright.federation.compression._contract import Codec
    from cellwright.federation.data.book import MetadataBook
    from cellwright.federation.privacy._contract import Mechanism

PRIVACY, COMPRESSION, SHARES = "privacy", "compression", "share_scalers"  # values of a "deploy" message


@dataclass(frozen=True)
class OwnerKit:
    """An owner's own: with mechanisms or a codec of its own it takes part in no task that asks for others."""

    mechanisms: tuple[Mechanism, ...] | None = None  # None: those that are deployed with the task
    codec: Codec | None = None  # None: the one that is deployed with the task
    signer: Signer | None = None  # None: replies are not signed
    coordinator_key: bytes | str | None = None  # Ed25519; None: it takes messages that nobody signed
    peers: Mapping[str, str] = field(
        default_factory=dict
    )  # other owners' Ed25519 keys, hex, known otherwise than by the coordinator
    energy: Energy | None = None  # None: energy is not known
    disclosure: Disclosure = field(default_factory=Disclosure)  # what it tells of its data beyond their form
    book: MetadataBook | None = None  # its sealed metadata; None: they are made anew each time
    exogenous: tuple[str, ...] = ()  # files of series joined by time that a task may have it read
    noise_seed: int | None = None  # of DP-SGD, for tests: hides nothing
    request: str | None = None  # the one that this state is of; None: any


def deployed_values(
    privacy: Mapping[str, Mapping[str, Any]], compression: str, compression_options: Mapping[str, Any], *, share_scalers: bool
) -> dict[str, Value]:
    """What `messages.deploy` takes beside the task. `privacy`: each mechanism's options, by its name."""
    codec = {"name": compression, "options": compression_options}
    return {
        PRIVACY: json.dumps(privacy, sort_keys=True),
        COMPRESSION: json.dumps(codec, sort_keys=True),
        SHARES: share_scalers,
    }


@dataclass(frozen=True)
class Channelled:
    """How an owner's updates leave it, for one task."""

    mechanisms: tuple[Mechanism, ...]
    codec: Codec

    @property
    def changes(self) -> bool:
        """Whether a mechanism seals or changes what leaves, so that nothing of it may leave another way."""
        from cellwright.federation.privacy._contract import Mechanism

        return any(m.seals or type(m).protect is not Mechanism.protect for m in self.mechanisms)

    def kept_to(self, instruction: Instruction) -> Instruction:
        """The instruction with what the mechanisms do to local training, whether or not the coordinator has asked for it."""
        local = instruction.local
        for mechanism in self.mechanisms:
            local = mechanism.local(local)
        return replace(instruction, local=local)


def channelled(owner: str, kit: OwnerKit, told: Mapping[str, bytes]) -> Channelled:
    """The mechanisms and the codec of a task; `told`: what was deployed with it, JSON by "privacy" and "compression".

    Raises:
        Refused: what is deployed cannot be read, or is not what the owner brings.
    """
    mechanisms = _mechanisms(told[PRIVACY]) if PRIVACY in told else None
    codec = _codec(told[COMPRESSION]) if COMPRESSION in told else None
    for what, own, asked in (("privacy", kit.mechanisms, mechanisms), ("compression", kit.codec, codec)):
        if own is not None and asked is not None and _form(own) != _form(asked):
            raise Refused(
                f"{owner}: the task is deployed with {what} {_form(asked)}, this owner takes part with {_form(own)} alone"
            )
    chosen = kit.mechanisms if kit.mechanisms is not None else mechanisms
    return Channelled(chosen or (), kit.codec or codec or _codec(b'{"name": "none", "options": {}}'))


def _form(what: Any) -> str:
    """A mechanism, several, or a codec in words, options included."""
    if isinstance(what, tuple):
        return ", ".join(sorted(map(_form, what))) or "none"
    return f"{type(what).__module__.rpartition('.')[2]} {what.options}"


@lru_cache(maxsize=32)
def _codec(content: bytes) -> Codec:
    """Codecs keep nothing: what is fed back is in the owner's state."""
    from cellwright.federation.compression import codec

    try:
        told = json.loads(content)
        return codec(str(told["name"]), dict(told["options"]))
    except (KeyError, TypeError, ValueError, CellwrightError) as error:
        raise Refused(f"the compression that is deployed cannot be meant: {error}") from None


@lru_cache(maxsize=32)
def _mechanisms(content: bytes) -> tuple[Mechanism, ...]:
    """Owners use what of a mechanism keeps nothing; a sealed sum's secrets are in the owner's state."""
    from cellwright.federation.privacy import mechanism

    try:
        return tuple(mechanism(str(name), dict(options)) for name, options in json.loads(content).items())
    except (AttributeError, TypeError, ValueError, CellwrightError) as error:
        raise Refused(f"the privacy mechanisms that are deployed cannot be meant: {error}") from None
