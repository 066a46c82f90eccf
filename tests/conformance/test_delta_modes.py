"""Every mode of a patch: exact bytes for any two files, the same patch twice, nothing but what the target has, clear refusals."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from cellwright.delta import apply, inspect, make
from cellwright.delta.modes import FAMILY, mode
from cellwright.errors import DeltaError, UnknownName
from cellwright.families import member, members

NAMES = members(FAMILY)
each = pytest.mark.parametrize("name", NAMES)
few = settings(max_examples=15, deadline=None)


def noise(count: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(count)


def weights(seed: int = 0, moved: float = 0.0) -> bytes:
    """A model of three types, whose floats have moved by a share of themselves."""
    rng = np.random.default_rng(seed)
    some = {
        "core.weight": rng.normal(0, 0.1, (60, 40)).astype(np.float32),
        "head.half": rng.normal(0, 0.1, 3000).astype(np.float16),
        "head.int8": rng.integers(-128, 127, 5000).astype(np.int8),
    }
    step = np.random.default_rng(99)
    return save({k: (v * (1 + moved * step.normal(0, 1, v.shape))).astype(v.dtype) for k, v in some.items()})


def rebuilt(folder: Path, name: str, base: bytes, target: bytes) -> bytes:
    """What comes out at the far end; the patch lies in `folder`/patch."""
    (folder / "base").write_bytes(base)
    (folder / "target").write_bytes(target)
    made = make(folder / "base", folder / "target", folder / "patch", [name])
    assert made == inspect(folder / "patch")
    assert (made.mode, made.bytes) == (name, (folder / "patch").stat().st_size)
    apply(folder / "base", folder / "patch", folder / "out")
    assert sorted(p.name for p in folder.iterdir()) == ["base", "out", "patch", "target"]
    return (folder / "out").read_bytes()


def test_the_family_is_whole():
    assert {"whole", "chunks", "weights", "prefix"} <= set(NAMES)
    with pytest.raises(UnknownName, match="chunks"):
        mode("chunk")


@each
def test_it_says_what_it_is(name):
    assert mode(name).title
    assert len(member(FAMILY, name, what="mode").__doc__) > 40


@each
@pytest.mark.parametrize(
    ("base", "target"),
    [
        (b"", b""),
        (b"", b"x"),
        (b"x", b""),
        (b"x", b"x"),
        (noise(5000), noise(5000)),
        (bytes(300_000), bytes(200_001)),
        (noise(70_000), noise(70_000, 1)),
        (noise(200_000), noise(1234, 5) + noise(200_000)[500:]),
        (weights(), weights(moved=1e-3)),
        (weights(), weights(1)),
        (weights(), noise(3000)),
        (noise(3000), weights()),
    ],
)
def test_the_exact_bytes_come_back(name, base, target, tmp_path):
    assert rebuilt(tmp_path, name, base, target) == target


@st.composite
def edited(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A file, and the same after insertions, deletions, overwritten stretches and moves."""
    base = noise(draw(st.integers(0, 40_000)), draw(st.integers(0, 5))) + bytes(draw(st.integers(0, 3000)))
    target = base
    for _ in range(draw(st.integers(0, 5))):
        at, count = draw(st.integers(0, len(target))), draw(st.integers(0, 5000))
        stretch = draw(st.one_of(st.binary(max_size=40), st.builds(noise, st.integers(0, 3000), st.integers(6, 9))))
        kind = draw(st.sampled_from(["insert", "delete", "overwrite", "move"]))
        if kind == "insert":
            target = target[:at] + stretch + target[at:]
        elif kind == "delete":
            target = target[:at] + target[at + count :]
        elif kind == "overwrite":
            target = target[:at] + stretch + target[at + len(stretch) :]
        else:
            target = target[at : at + count] + target[:at] + target[at + count :]
    return base, target


@each
@few
@given(pair=edited())
def test_any_edit_is_rebuilt(name, pair):
    with tempfile.TemporaryDirectory() as folder:
        assert rebuilt(Path(folder), name, *pair) == pair[1]


@each
@few
@given(seed=st.integers(0, 99), share=st.sampled_from([0, 1e-7, 1e-3, 1.0]), lead=st.integers(0, 9))
def test_any_weights_are_rebuilt(name, seed, share, lead):
    with tempfile.TemporaryDirectory() as folder:
        base, target = weights(seed), bytes(lead) + weights(seed, share)
        assert rebuilt(Path(folder), name, base, target) == target


@each
def test_every_float_there_is_comes_back(name, tmp_path):
    """Infinities, both zeros, subnormal numbers and every pattern of a NaN are bits like others."""
    patterns = np.arange(1 << 16, dtype=np.uint16)
    odd = np.array([0, 1 << 31, 0x7F800000, 0xFF800000, 0x7FC00001, 0xFFFFFFFF, 1, 0x80000001] * 20, np.uint32)
    base = save({"h": patterns.view(np.float16), "f": odd.view(np.float32)})
    target = save({"h": np.roll(patterns, 7).view(np.float16), "f": odd[::-1].copy().view(np.float32)})
    assert rebuilt(tmp_path, name, base, target) == target


@each
def test_the_same_files_give_the_same_patch(name, tmp_path):
    (tmp_path / "a").write_bytes(weights())
    (tmp_path / "b").write_bytes(weights(moved=0.01))
    patches = []
    for n in range(2):
        make(tmp_path / "a", tmp_path / "b", tmp_path / f"p{n}", [name])
        patches.append((tmp_path / f"p{n}").read_bytes())
    assert patches[0] == patches[1]


@each
def test_another_base_is_refused_where_one_is_needed(name, tmp_path):
    assert rebuilt(tmp_path, name, weights(), weights(moved=0.01)) == weights(moved=0.01)
    for other in (noise(len(weights())), noise(10), b""):
        (tmp_path / "base").write_bytes(other)
        (tmp_path / "out").unlink()
        if mode(name).needs_base:
            with pytest.raises(DeltaError, match=r"is another file .*; fetch a patch from that version, or the whole file"):
                apply(tmp_path / "base", tmp_path / "patch", tmp_path / "out")
            assert not (tmp_path / "out").exists()
            (tmp_path / "out").touch()
        else:
            apply(tmp_path / "base", tmp_path / "patch", tmp_path / "out")


@each
@few
@given(data=st.data())
def test_a_damaged_patch_gives_the_target_or_an_error_and_leaves_nothing(name, data):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        target = weights(moved=0.01)[:9000]
        rebuilt(folder, name, weights()[:9000], target)
        (folder / "out").unlink()
        patch = bytearray((folder / "patch").read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(patch) - 1))
            patch[at] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(0, len(patch)))
        (folder / "patch").write_bytes(patch[:cut] if data.draw(st.booleans()) else patch)
        try:
            apply(folder / "base", folder / "patch", folder / "out", expected=None)
        except DeltaError:
            assert sorted(p.name for p in folder.iterdir()) == ["base", "patch", "target"]
        else:  # the damage hit what does not matter, such as the mode's own slack, or the announced hash of an unused base
            assert (folder / "out").read_bytes() == target
