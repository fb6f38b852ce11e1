"""The folder of built files: private, whole, bounded."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from fusible.errors import UsageError
from fusible.runtime.native.cache import FileCache, default_cache_dir, matches_hash


def put(cache: FileCache, name: str, data: bytes = b"data", *, age: float = 0) -> Path:
    """Put an entry into a cache, as if it had last been used so many seconds ago."""
    with cache.scratch() as folder:
        (folder / "file").write_bytes(data)
        path = cache.put(name, folder / "file")
    os.utime(path.parent, (time.time() - age,) * 2)
    return path


def test_where_it_is(tmp_path: Path) -> None:
    assert default_cache_dir({"FUSIBLE_CACHE_DIR": str(tmp_path)}) == tmp_path / "native"
    assert default_cache_dir({"HOME": "/there"}) == Path("/there/.cache/fusible/native")
    assert default_cache_dir({}) == Path.home() / ".cache" / "fusible" / "native"


def test_what_was_put_is_there(tmp_path: Path) -> None:
    cache = FileCache(tmp_path / "a" / "b", 1000)
    assert cache.get("x") is None
    path = put(cache, "x")
    assert cache.get("x") == path
    assert path.read_bytes() == b"data"
    assert sorted(p.name for p in path.parent.iterdir()) == ["x", "x.sha256"]
    assert [p.name for p in cache.folder.iterdir()] == ["x"]


def test_a_file_is_hashed_once_and_again_when_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FileCache(tmp_path, 1000)
    path = put(cache, "x")
    for name in ("_SETTLED_NS", "_TICKS_NS"):
        monkeypatch.setattr(f"fusible.runtime.native.cache.{name}", 0)
    assert cache.get("x") == path
    monkeypatch.setattr("fusible.runtime.native.cache.matches_hash", lambda path: pytest.fail("hashed again"))
    assert cache.get("x") == path
    monkeypatch.undo()
    facts = path.stat()
    while path.stat().st_ctime_ns == facts.st_ctime_ns:  # older systems count time in ticks
        path.write_bytes(b"date")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))  # its time of change nobody can set
    assert path.stat().st_size == facts.st_size and cache.get("x") is None


def test_a_young_file_is_hashed_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_SETTLED_NS", "_TICKS_NS"):
        monkeypatch.setattr(f"fusible.runtime.native.cache.{name}", 60 * 10**9)
    cache = FileCache(tmp_path, 1000)
    path = put(cache, "x")
    assert cache.get("x") == path and not path.with_name("x.seen").exists()


def test_the_folder_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        FileCache(tmp_path / "a" / "b", 1000)
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/b")] == [0o700, 0o700]


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777])
def test_a_folder_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(UsageError, match=rf"others can write into it \(mode {mode:04o}\): chmod 700 it; FUSIBLE_"):
        FileCache(tmp_path, 1000)
    tmp_path.chmod(0o755)
    FileCache(tmp_path, 1000)


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    if owner == 0:
        FileCache(tmp_path, 1000)  # root's folder: a cache prepared for others
        real = os.stat_result
        monkeypatch.setattr(Path, "stat", lambda self, **_: real([0o40700, 1, 1, 1, 54321, 0, 0, 0, 0, 0]))
        owner = 54321
    with pytest.raises(UsageError, match=f"it belongs to user {owner}, not to user 12345"):
        FileCache(tmp_path, 1000)


def test_what_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="it is not a folder"):
        FileCache(tmp_path / "file", 1000)
    with pytest.raises(UsageError, match=r"cannot be kept in .*file/below"):
        FileCache(tmp_path / "file" / "below", 1000)


@pytest.mark.parametrize("damaged", [b"", b"dat", b"dota", b"data and more"])
def test_a_damaged_entry_is_not_served_and_its_replacement_is_said(tmp_path: Path, damaged: bytes) -> None:
    cache = FileCache(tmp_path, 1000)
    path = put(cache, "x")
    path.write_bytes(damaged)
    assert cache.get("x") is None
    with pytest.warns(RuntimeWarning, match="x was damaged; it has been built again"):
        put(cache, "x")
    assert cache.get("x") == path


def test_an_entry_without_its_hash_is_as_good_as_none(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, 1000)
    path = put(cache, "x")
    path.with_name("x.sha256").unlink()
    assert not matches_hash(path)
    assert cache.get("x") is None


def test_an_entry_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, 1000)
    first = put(cache, "x", b"first").stat().st_ino
    assert put(cache, "x", b"other").stat().st_ino == first
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_the_entries_unused_for_longest_go_first(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, 350)  # an entry of 100 bytes has a hash of 65
    for name, age in (("a", 50), ("b", 40), ("c", 30), ("d", 20)):
        put(cache, name, name.encode() * 100, age=age)
    assert cache.get("b") is not None  # now it is the newest
    cache.trim(())
    assert [name for name in "abcd" if cache.get(name)] == ["b", "d"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "d"]


def test_what_was_just_built_stays_whatever_its_size(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, 10)
    put(cache, "large", b"x" * 100, age=50)
    put(cache, "new", b"x" * 5)
    cache.trim({"large"})
    assert cache.get("large") is not None
    assert cache.get("new") is None


def test_what_a_dead_build_left_is_removed_after_a_day(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, 1000)
    for name, hours in (("build-dead", 25), ("build-alive", 1)):
        (tmp_path / name / "new").mkdir(parents=True)
        (tmp_path / name / "file").write_text("")
        os.utime(tmp_path / name, (time.time() - 3600 * hours,) * 2)
    cache.trim(())
    assert [p.name for p in tmp_path.iterdir()] == ["build-alive"]


def test_writers_take_turns(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, 1000)
    inside, most = 0, 0

    def write() -> None:
        nonlocal inside, most
        with cache.lock():
            inside += 1
            most = max(most, inside)
            time.sleep(0.02)
            inside -= 1

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_writers_of_other_entries_do_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusible.runtime.native.cache._LOCK_SECONDS", 0.0)
    monkeypatch.setattr("fusible.runtime.native.cache.time.sleep", lambda seconds: pytest.fail("it waits"))
    cache = FileCache(tmp_path, 1000)
    with cache.lock("a1.so"), cache.lock("b2.so"):
        assert {path.name for path in tmp_path.iterdir()} == {"locka", "lockb"}


def test_it_is_trimmed_once_it_has_grown_by_a_twentieth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed: list[object] = []
    monkeypatch.setattr(FileCache, "trim", lambda self, keep: trimmed.append(keep))
    cache = FileCache(tmp_path, 1000)
    for nbytes in (20, 30, 1):
        assert not trimmed
        cache.grow(nbytes, {"new"})
    assert trimmed == [{"new"}]
    (tmp_path / "grown").write_text("damaged")
    cache.grow(50, ())
    assert len(trimmed) == 1


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with FileCache(tmp_path, 1000).lock():
        pass


def test_a_holder_that_hangs_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusible.runtime.native.cache._LOCK_SECONDS", 0.05)
    cache = FileCache(tmp_path, 1000)
    with cache.lock(), cache.lock():
        pass


def test_what_the_file_system_refuses_is_explained(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, 1000)
    with pytest.raises(UsageError, match=r"No space left.*FUSIBLE_CACHE_DIR or"), cache.explained():
        raise OSError(errno.ENOSPC, "No space left on device")
