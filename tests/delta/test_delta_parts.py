"""Chunks, numbers, choice and policy: what is worked out by hand, and what must hold for any input."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from cellwright.delta import FileId, Patch, Policy, make, pays
from cellwright.delta.binary import Binary
from cellwright.delta.chunking import GEAR, ends, hashes
from cellwright.delta.copies import Copy, copies
from cellwright.delta.numbers import CODINGS, coding
from cellwright.errors import UnknownName, WrongUse


def noise(count: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(count)


def cut(path, content: bytes, average: int = 1024) -> list[int]:
    path.write_bytes(content)
    with Binary(path) as file:
        return list(ends(file, average))


def test_the_hash_is_the_recurrence():
    content, value = noise(200), 0
    expected = []
    for byte in content:
        value = (2 * value + int(GEAR[byte])) % (1 << 32)
        expected.append(value)
    found = hashes(np.frombuffer(content, np.uint8))
    assert found.tolist() == expected


@pytest.mark.parametrize("content", [noise(300_000), bytes(300_000), b"ab" * 90_000, noise(65_536), noise(65_537), b"x", b""])
def test_chunks_cover_the_file_and_keep_to_their_sizes(content, tmp_path):
    found = cut(tmp_path / "f", content)
    sizes = np.diff([0, *found])
    assert sum(sizes) == len(content)
    assert all(256 <= s <= 4096 for s in sizes[:-1])
    assert all(0 < s <= 4096 for s in sizes)


def test_cuts_depend_on_what_is_near_alone(tmp_path):
    """All but the first few are the same after an insertion at the front, that much later."""
    content = noise(200_000)
    before, after = cut(tmp_path / "a", content), cut(tmp_path / "b", b"inserted" + content)
    assert 100 < len(before) < 250
    assert len({e + 8 for e in before} - set(after)) <= 3


def test_copies_grow_to_where_the_files_differ(tmp_path):
    content = noise(50_000)
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "b").write_bytes(content[:20_011] + b"\xff" * 5 + content[20_111:])
    with Binary(tmp_path / "a") as base, Binary(tmp_path / "b") as target:
        assert copies(base, target) == [Copy(0, 0, 20_011), Copy(20_016, 20_111, 29_889)]


def test_copies_of_repeated_content_stay_apart(tmp_path):
    (tmp_path / "a").write_bytes(noise(6000) * 3)
    (tmp_path / "b").write_bytes(noise(6000) * 5)
    with Binary(tmp_path / "a") as base, Binary(tmp_path / "b") as target:
        at = 0
        for c in copies(base, target):
            assert at <= c.start
            assert target.read(c.start, c.count) == base.read(c.base, c.count)
            at = c.stop


@pytest.mark.parametrize(
    ("code", "base", "target", "number"),
    [
        ("ulp4", np.float32(1), np.float32(1), 0),
        ("ulp4", np.float32(1), np.nextafter(np.float32(1), np.float32(2)), 2),  # folded: +1 is 2, -1 is 1
        ("ulp4", np.float32(1), np.nextafter(np.float32(1), np.float32(0)), 1),
        ("ulp4", np.float32(-1), np.nextafter(np.float32(-1), np.float32(0)), 2),
        ("ulp4", np.float32(-0.0), np.float32(0.0), 2),
        ("ulp2", np.float16(1), np.float16(1 + 2**-10 * 3), 6),
        ("ulp8", np.float64(2), np.nextafter(2.0, 0), 1),
        ("int1", np.int8(-3), np.int8(-5), 3),
        ("int1", np.int8(127), np.int8(-128), 2),  # modulo 256 they are neighbours
        ("int8", np.int64(10), np.int64(0), 19),
    ],
)
def test_differences_by_hand(code, base, target, number):
    made = coding(code)
    a, b = (np.array([x]).view(f"<u{made.width}") for x in (base, target))
    planes = made.encode(b, a)
    assert int.from_bytes(planes[:, 0].tobytes(), "little") == number
    assert made.decode(planes, a).tolist() == b.tolist()


@pytest.mark.parametrize("code", CODINGS)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_two_patterns_come_back(code, data):
    made = coding(code)
    some = st.lists(st.integers(0, 256**made.width - 1), min_size=4, max_size=4)
    a, b = (np.array(data.draw(some), f"<u{made.width}") for _ in range(2))
    old = a if made.based else None
    planes = made.encode(b, old)
    assert planes.shape == (made.width, 4)
    assert made.decode(planes, old).tolist() == b.tolist()


def test_the_smallest_of_the_modes_is_kept(tmp_path):
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.1, 20_000).astype(np.float32)
    save_file({"w": weights}, tmp_path / "a")
    save_file({"w": weights * np.float32(1 + 1e-6)}, tmp_path / "moved")
    save_file({"v": rng.normal(0, 0.1, 50).astype(np.float32), "w": weights}, tmp_path / "longer")
    each = {
        name: make(tmp_path / "a", tmp_path / "moved", tmp_path / name, [name]).bytes for name in ("whole", "chunks", "weights")
    }
    best = make(tmp_path / "a", tmp_path / "moved", tmp_path / "patch")
    assert (best.mode, best.bytes) == ("weights", min(each.values()))
    assert best.share < 0.35 < each["chunks"] / best.target.bytes
    assert make(tmp_path / "a", tmp_path / "longer", tmp_path / "patch").share < 0.02
    assert make(tmp_path / "a", tmp_path / "a", tmp_path / "patch").share < 0.01
    with pytest.raises(UnknownName, match="weights"):
        make(tmp_path / "a", tmp_path / "a", tmp_path / "patch", ["weight"])
    with pytest.raises(WrongUse, match="no mode"):
        make(tmp_path / "a", tmp_path / "a", tmp_path / "patch", [])


def test_files_in_no_known_format_are_compared_in_place(tmp_path):
    half = np.random.default_rng(0).normal(0, 1, 20_000).astype(np.float16)
    (tmp_path / "a").write_bytes(half.tobytes() + b"!")
    (tmp_path / "b").write_bytes((half.view(np.uint16) + np.tile(np.array([0, 1, 2, 3], np.uint16), 5000)).tobytes() + b"?")
    assert make(tmp_path / "a", tmp_path / "b", tmp_path / "patch", ["weights"]).share < 0.3


def patch(size: int, mode: str = "weights", target_bytes: int = 100_000_000) -> Patch:
    some = FileId(sha256="0" * 64, bytes=target_bytes)
    return Patch(path=None, mode=mode, base=some, target=some, bytes=size)


def test_a_patch_pays_where_it_saves_enough():
    policy = Policy(least_saved=0.25)
    assert pays(patch(75_000_000), 100_000_000, policy)
    assert not pays(patch(75_000_001), 100_000_000, policy)
    assert not pays(patch(100_000_001), 100_000_000, Policy(least_saved=0))


def test_a_patch_pays_where_the_rebuilding_is_not_longer_than_the_sending():
    """100 MB at 100 MB/s take 1 s to rebuild; saving half of them saves 1 s at 400 Mbit/s."""
    rates = {"weights": 100e6}
    assert pays(patch(50_000_000), 100_000_000, Policy(link_bit_s=390e6, rebuild_bytes_s=rates))
    assert not pays(patch(50_000_000), 100_000_000, Policy(link_bit_s=410e6, rebuild_bytes_s=rates))
    assert pays(patch(50_000_000), 100_000_000, Policy(rebuild_bytes_s=rates))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["whole", "chunks", "weights", "prefix"])
def test_memory_does_not_grow_with_the_file(mode, tmp_path):
    """200 MB are rebuilt in less than 150 MB of memory, Python included."""
    with (tmp_path / "a").open("wb") as a, (tmp_path / "b").open("wb") as b:
        for seed in range(25):
            part = np.random.default_rng(seed).normal(0, 1, 2_000_000).astype(np.float32)
            a.write(part.tobytes())
            b.write((part * np.float32(1.0001)).tobytes() if seed % 2 else part.tobytes())
    make(tmp_path / "a", tmp_path / "b", tmp_path / "patch", [mode])
    code = (
        "import sys; from pathlib import Path; from cellwright.delta import apply; apply(*map(Path, sys.argv[1:]));"
        "print(*[x.split()[1] for x in open('/proc/self/status') if x.startswith('VmHWM')])"
    )
    files = [str(tmp_path / name) for name in ("a", "patch", "c")]
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 150_000
    with Binary(tmp_path / "b") as b, Binary(tmp_path / "c") as c:
        assert b.identity() == c.identity()
