"""A folder of built files, each kept with its SHA-256, shared by all processes of one user.

An entry is a folder of a file and its hash, which appears by one rename and is never changed: nobody sees half of one,
and a sound one is never replaced. What is damaged is not served: a file is hashed when it is wanted, unless it has been
and by its inode, size and times is the same still (which is noted in a third file). Writers take turns by a lock where
the file system has locks; without one they may do the same work twice, and no harm comes of it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import time
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fusible.errors import UsageError

__all__ = ["CACHE_BYTES", "FileCache", "default_cache_dir", "matches_hash"]

CACHE_BYTES = 2 * 2**30
"""What the cache of native code keeps, about."""

_HASH, _SEEN = ".sha256", ".seen"
_MOST_TEXT = 1024  # bytes; an identity has some ninety
_TICKS_NS = 50_000_000  # a change so much later shows in times that have nanoseconds
_SETTLED_NS = 2_000_000_000  # and in any file system's
_SCRATCH, _LOCK, _GROWN = "build-", "lock", "grown"
_TRIMMED_SHARE = 20  # of the limit: to look at every entry takes longer than to build a small library
_LOCK_SECONDS, _POLL_SECONDS = 300.0, 0.02
_ABANDONED_SECONDS = 24 * 3600
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


def default_cache_dir(environment: Mapping[str, str]) -> Path:
    """Return `$FUSIBLE_CACHE_DIR/native`, by default `~/.cache/fusible/native`; it need not exist."""
    root, home = environment.get("FUSIBLE_CACHE_DIR"), environment.get("HOME")
    return (Path(root) if root else Path(home or Path.home()) / ".cache" / "fusible") / "native"


def matches_hash(path: Path) -> bool:
    """Return whether a file is the one whose SHA-256 stands beside it."""
    try:
        stated = _beside(path, _HASH).read_text(encoding="utf-8", errors="replace").strip()
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == stated
    except FileNotFoundError:
        return False


def _is_sound(path: Path) -> bool:
    """`matches_hash`, looked up where the file did not change since that was found out."""
    looked = time.time_ns()
    try:
        facts = os.stat(path)
        identity = f"{facts.st_dev} {facts.st_ino} {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}"
        if _text(f"{path}{_SEEN}") == identity:
            return True
    except FileNotFoundError:
        return False
    if not matches_hash(path):
        return False
    settled = _TICKS_NS if facts.st_ctime_ns % 1_000_000 else _SETTLED_NS
    if looked - max(facts.st_ctime_ns, facts.st_mtime_ns) > settled:
        _note(path, identity)
    return True


def _text(path: str) -> str:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(_MOST_TEXT).decode(errors="replace")
    except OSError:
        return ""  # there is none, or another user's that this one may not read: the file is hashed


def _note(path: Path, identity: str) -> None:
    new = _beside(path, f"{_SEEN}{os.getpid()}")
    with suppress(OSError):  # the folder is read-only: its files are hashed each time
        new.write_text(identity, encoding="utf-8")
        new.replace(_beside(path, _SEEN))


@dataclass(frozen=True, slots=True)
class FileCache:
    """The files in `folder`, which is made on first use with mode 0700; at most `limit` bytes of them.

    Raises UsageError if the folder cannot be had, or if anybody else could write into it.
    """

    folder: Path
    limit: int

    def __post_init__(self) -> None:
        with self.explained():
            _refuse_if_others_write(self.folder, _made_private(self.folder))

    def get(self, name: str) -> Path | None:
        """Return the path of an entry, now the last one to be removed; None if there is none or it is damaged."""
        path = self._path(name)
        if not _is_sound(path):
            return None
        with suppress(OSError):  # the folder is read-only: its entries stay as old as they are
            os.utime(path.parent)
        return path

    def put(self, name: str, file: Path) -> Path:
        """Move a file of `scratch()` into the cache unless the entry is there; returns its path there.

        Warns (RuntimeWarning) if it replaces a damaged one.
        """
        path = self._path(name)
        with self.scratch() as folder:
            new = folder / "new"
            new.mkdir()
            os.replace(file, new / name)
            with (new / name).open("rb") as opened:
                _beside(new / name, _HASH).write_text(hashlib.file_digest(opened, "sha256").hexdigest() + "\n")
            while not _moved(new, path.parent) and not matches_hash(path):
                warnings.warn(f"{path} was damaged; it has been built again", RuntimeWarning, stacklevel=2)
                with suppress(FileNotFoundError):  # another process was faster
                    path.parent.rename(folder / f"damaged{time.monotonic_ns()}")
        return path

    def _path(self, name: str) -> Path:
        return self.folder / name.replace(".", "-") / name

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what the file system refuses within the block (no space, no permission) into UsageError."""
        try:
            yield
        except OSError as error:
            raise _unusable(self.folder, str(error)) from error

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for the time of a build, on the file system of the cache."""
        import tempfile  # noqa: PLC0415 - loading an artifact that was loaded before should not import it

        with tempfile.TemporaryDirectory(dir=self.folder, prefix=_SCRATCH) as name:
            yield Path(name)

    @contextmanager
    def lock(self, name: str = "") -> Iterator[None]:
        """Keep other writers of an entry out, for as long as they are willing to wait.

        One of sixteen locks serves all names that begin alike: builds of other libraries need not wait.
        """
        with (self.folder / f"{_LOCK}{name[:1]}").open("ab") as file:
            locked = _locked(file.fileno())
            try:
                yield
            finally:
                if locked:
                    fcntl.flock(file, fcntl.LOCK_UN)  # a child that was forked meanwhile holds the file as well

    def grow(self, nbytes: int, keep: Collection[str]) -> None:
        """Count bytes that were added; once they are a twentieth of the limit, trim."""
        path = self.folder / _GROWN
        counted = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        total = nbytes + (int(counted) if counted.isdecimal() else 0)
        due = total > self.limit // _TRIMMED_SHARE
        path.write_text("0" if due else str(total), encoding="utf-8")
        if due:
            self.trim(keep)

    def trim(self, keep: Collection[str]) -> None:
        """Remove the entries unused for longest until the rest is within the limit, and what dead builds left."""
        import shutil  # noqa: PLC0415 - see above

        entries, total = [], 0
        kept = {self._path(name).parent for name in keep}
        for folder in (path for path in self.folder.iterdir() if path.is_dir()):
            size, used = _size_and_time(folder)
            if folder.name.startswith(_SCRATCH):
                if time.time() - used > _ABANDONED_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            total += size
            if folder not in kept:
                entries.append((used, size, folder))
        for _, size, folder in sorted(entries):
            if total <= self.limit:
                break
            shutil.rmtree(folder, ignore_errors=True)  # perhaps another process is at it as well
            total -= size


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _made_private(folder: Path) -> os.stat_result:
    """Facts about the folder, which is made if there is none."""
    with suppress(FileNotFoundError):
        return folder.stat()
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
    return folder.stat()


def _refuse_if_others_write(folder: Path, facts: os.stat_result) -> None:
    """Whoever can write here runs code in our name: the files are loaded into the process."""
    if not stat.S_ISDIR(facts.st_mode):
        raise _unusable(folder, "it is not a folder")
    if facts.st_uid not in (0, os.geteuid()):  # root may write everywhere, and so prepare a cache for others
        raise _unusable(folder, f"it belongs to user {facts.st_uid}, not to user {os.geteuid()}, who runs this")
    if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _unusable(folder, f"others can write into it (mode {stat.S_IMODE(facts.st_mode):04o}): chmod 700 it")


def _unusable(folder: Path, why: str) -> UsageError:
    return UsageError(
        f"the cache of native code cannot be kept in {folder}: {why}; FUSIBLE_CACHE_DIR or Options(cache_dir=...) "
        "names another folder"
    )


def _locked(file: int) -> bool:
    """Wait for the lock; False if the file system has none, or if its holder seems to hang."""
    end = time.monotonic() + _LOCK_SECONDS
    while time.monotonic() < end:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(_POLL_SECONDS)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return False
    return False


def _moved(folder: Path, target: Path) -> bool:
    """Rename a folder, unless there is one with something in it."""
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _size_and_time(folder: Path) -> tuple[int, float]:
    """The bytes of the files in a folder, and when it was last used."""
    size, used = 0, 0.0
    with suppress(FileNotFoundError):  # it is being removed
        used = folder.stat().st_mtime
        size = sum(path.lstat().st_size for path in folder.iterdir())
    return size, used
