"""Models of one's own: Python files that `train.models` names by their path, held against the contract before anything trains.

The file is run as a part of this program, with all that the program may do: name only files that you trust. It must stand on its
own: only its own bytes tell whether it is still what a forecaster was trained with.
"""

from __future__ import annotations

import hashlib
import re
import sys
import threading
import traceback
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from types import ModuleType
from typing import Any

from cellwright.errors import ParamsError, TrainingError
from cellwright.workspace import find_root

_KEY = re.compile(r"(?P<model>.+\.py|neuralforecast:[^:]*|[^:]*)(?::(?P<preset>.*))?")
_INPUTS = ("site", "patch", "all")
_NEEDED = (
    "a model's file holds `class Network(_contract.Network)` and, as a frozen dataclass, `class Options(_contract.Options)`, "
    "with `from models import _contract`; models/gru.py is a short example"
)
_loading = threading.Lock()  # candidates may be resolved in threads


def split(key: str) -> tuple[str, str]:
    """Model and preset ("" for none) of an entry of `train.models`: `vmrnn:b`, `path/mine.py:small`, `neuralforecast:NHITS`."""
    match = _KEY.fullmatch(key)
    return (match["model"], match["preset"] or "") if match else (key, "")


def is_own(model: str) -> bool:
    """Whether a model is named by the path of its file."""
    return model.endswith(".py")


def is_foreign(model: str) -> bool:
    """Whether a model is none of the zoo, so that no conformance test has seen it."""
    return is_own(model) or model.startswith("neuralforecast:")


def public(key: str) -> str:
    """A candidate's key, or a model, as others may read it: of a file outside of the project its name, not the folders it lies in."""
    model, preset = split(key)
    parts = Path(model).parts
    if not is_own(model) or not (Path(model).is_absolute() or parts[0].startswith("~") or ".." in parts):
        return key
    return parts[-1] + (f":{preset}" if preset else "")


def found(path: str) -> Path:
    """Where the file lies: a relative path starts at the project's folder.

    Raises:
        ParamsError: there is no such file.
    """
    file = Path(path).expanduser()
    file = file if file.is_absolute() else find_root() / file
    if not file.is_file():
        raise ParamsError(f"train.models: there is no file {file}; a relative path starts at the folder of params.yaml")
    return file.resolve()


def sha256(path: str) -> str:
    """SHA-256 of the file's bytes.

    Raises:
        ParamsError: there is no such file.
    """
    return hashlib.sha256(found(path).read_bytes()).hexdigest()


def module(path: str, trained: str | None = None) -> ModuleType:
    """The file's module, which keeps to the contract as far as can be told without running its network.

    `trained`: the SHA-256 that the file had when a forecaster was trained with it.

    Raises:
        ParamsError: the file is missing, cannot be imported, or lacks a piece; all that it lacks is named.
        TrainingError: it is another file now than the one that the forecaster was trained with.
    """
    file = found(path)
    source = file.read_bytes()
    digest = hashlib.sha256(source).hexdigest()
    if trained not in (None, digest):
        raise TrainingError(
            f"{path} has changed since this forecaster was trained (SHA-256 {digest[:12]}… now, {str(trained)[:12]}… then); "
            "put the file back as it was, or train it again"
        )
    with _loading:
        return _imported(path, file, source, digest)


def _imported(path: str, file: Path, source: bytes, digest: str) -> ModuleType:
    """The module of these bytes, imported once in a process; a changed file is another module."""
    name = f"cellwright_own_{hashlib.sha256(f'{file}:{digest}'.encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    made = ModuleType(name)
    made.__file__ = str(file)
    made.__dict__["sha256"] = digest
    sys.modules[name] = made  # dataclasses look their module up
    try:
        code = compile(source, str(file), "exec", dont_inherit=True)  # else our `from __future__` would hold in it
        exec(code, made.__dict__)  # noqa: S102 - what an import does, of just these bytes
        if wrong := list(missing(made)):
            raise ParamsError(f"{path} is no model yet: {'; '.join(wrong)}. {_NEEDED[0].upper()}{_NEEDED[1:]}")
    except BaseException as error:
        sys.modules.pop(name, None)  # half a module is none; Ctrl-C may come here too
        if isinstance(error, ParamsError) or not isinstance(error, Exception | SystemExit):
            raise
        raise ParamsError(f"{path} cannot be imported: {told(error, file)}") from error
    return made


def told(error: BaseException, file: Path) -> str:
    """What a file of somebody's own raised, and the line of it that did."""
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {type(error).__name__}: {error.msg}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file]
    where = f"line {lines[-1]}: " if lines else ""
    return f"{where}{type(error).__name__}: {error}"


def missing(made: ModuleType) -> Iterator[str]:
    """What a module lacks of a model, one piece a line."""
    from models import _contract

    network, options = getattr(made, "Network", None), getattr(made, "Options", None)
    yield from _no_subclass("Network", network, _contract.Network)
    yield from _no_subclass("Options", options, _contract.Options)
    if isinstance(network, type) and issubclass(network, _contract.Network):
        yield from _of_network(network)
    if isinstance(options, type) and issubclass(options, _contract.Options):
        yield from _of_options(options)


def _no_subclass(name: str, kind: Any, base: type) -> Iterator[str]:
    if kind is None:
        yield f"there is no class {name} in it"
    elif not (isinstance(kind, type) and issubclass(kind, base)) or kind is base:
        yield f"{name} is no subclass of models._contract.{name}"


def _of_network(network: Any) -> Iterator[str]:
    if not isinstance(getattr(network, "title", None), str) or not network.title:
        yield 'Network.title is missing: a name for people, as in `title = "My model"`'
    inputs = getattr(network, "inputs", None)
    if inputs is None:
        yield f'Network.inputs is missing: what it can take, as in `inputs = ("site",)`; there are {", ".join(_INPUTS)}'
    elif not isinstance(inputs, tuple) or not inputs or set(inputs) - set(_INPUTS):
        yield f"Network.inputs is {inputs!r}: a tuple of one or more of {', '.join(_INPUTS)} is needed"


def _of_options(options: Any) -> Iterator[str]:
    if "__dataclass_fields__" not in vars(options) and vars(options).get("__annotations__"):
        yield "Options is no dataclass: write `@dataclass(frozen=True)` above it"
    for field in fields(options):
        if field.default is MISSING and field.default_factory is MISSING:
            yield f"Options.{field.name} has no default: declare it with `option(default, doc)`"
        if not field.metadata.get("doc"):
            yield f"Options.{field.name} has no description: declare it with `option(default, doc)`"
