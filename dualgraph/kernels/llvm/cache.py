"""Machine code on disk, so that a second process starts warm. A damaged cache costs time, never correctness.

A file is a header (magic, SHA-256 over key and content) and an object file. It is used only if it belongs to the user,
nobody else can write it, and its checksum fits: what the checksum does not cover is never given to the linker. Files
are written under a temporary name and renamed, so concurrent processes see a whole file or none.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import tempfile
import time
import warnings
from pathlib import Path
from typing import NamedTuple

from dualgraph import config
from dualgraph.errors import CacheWarning, here

LIMIT = 512 * 2**20  # bytes; beyond it the files unused for longest are deleted
_MAGIC = b"dualgraph object 1\n"
_HEADER = len(_MAGIC) + 32
_OURS = re.compile(r"[0-9a-f]{64}\.o|\.[0-9a-f]{64}\..*\.tmp")
_FRESH = 86400.0  # seconds: a file used within a day is not touched again

_said_unfit = _said_unwritable = False
_stored_bytes = 0  # since the last trim; the first store of a process trims
_trimmed = False
_hits = _misses = 0


class CacheInfo(NamedTuple):
    """State of the cache: `hits` and `misses` count this process's look-ups on disk."""

    directory: str
    files: int
    nbytes: int
    limit: int
    hits: int
    misses: int


def directory() -> Path:
    """`DUALGRAPH_CACHE_DIR`, else the user's cache directory."""
    chosen = config.cache_dir()
    if chosen:
        return Path(chosen)
    import platformdirs  # not needed where the directory is given

    return Path(platformdirs.user_cache_dir("dualgraph", appauthor=False))


def _checksum(key: str, content: bytes) -> bytes:
    return hashlib.sha256(key.encode() + b"\0" + content).digest()


def _private(status: os.stat_result) -> bool:
    """Ours, and writable by nobody else."""
    if not hasattr(os, "getuid"):
        return True
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


class _Unfit(Exception):
    """A file in the cache that must not be used; its argument says why."""


def load(key: str) -> bytes | None:
    """The object stored under `key`, or None. A file that fails its checks is reported, removed and not used."""
    global _hits, _misses
    path = directory() / f"{key}.o"
    try:
        content = _read(path, key)
    except _Unfit as why:
        _reject(path, str(why))
        content = None
    if content is None:
        _misses += 1
    else:
        _hits += 1
    return content


def _read(path: Path, key: str) -> bytes | None:
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    flags |= getattr(os, "O_NONBLOCK", 0)  # to open a pipe would wait for its writer
    try:
        descriptor = os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError):  # of the latter `store` speaks
        return None
    except OSError as error:
        raise _Unfit(f"it cannot be opened ({error.strerror})") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _Unfit("it is not a regular file")
        if not _private(status):
            raise _Unfit("it belongs to another user or others may write it")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read()
    except OSError as error:
        raise _Unfit(f"it cannot be read ({error.strerror})") from None
    finally:
        os.close(descriptor)
    content = data[_HEADER:]
    if not data.startswith(_MAGIC) or data[len(_MAGIC) : _HEADER] != _checksum(key, content):
        raise _Unfit("its checksum does not fit its content")
    if time.time() - status.st_mtime > _FRESH:
        with contextlib.suppress(OSError):
            os.utime(path)  # the time of last use, by which `trim` decides
    return content


def _reject(path: Path, why: str) -> None:
    global _said_unfit
    try:
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        remedy = "it is compiled again and replaced, nothing else is needed; further ones are replaced without a word"
    except OSError as error:
        remedy = (
            f"it could not be removed ({error.strerror}): delete it, or set DUALGRAPH_CACHE_DIR to another directory"
        )
    if not _said_unfit:
        _said_unfit = True
        _warn(
            f"got an unusable file in the cache of machine code: {path}: {why}; a cached object must be whole and the "
            f"user's own; {remedy}"
        )


def _warn(text: str) -> None:
    """Warn at the user's line."""
    where = here(2)
    if where is None:
        warnings.warn(text, CacheWarning, stacklevel=3)
    else:
        warnings.warn_explicit(text, CacheWarning, where.file, where.line)


def store(key: str, content: bytes) -> None:
    """Keep `content` under `key`. Where that is impossible, say so once per process and go on without."""
    global _said_unwritable, _stored_bytes, _trimmed
    place = directory()
    try:
        _write(place, key, content)
    except IsADirectoryError:  # in the place of the file: `_reject` has spoken of it
        return
    except OSError as error:
        if not _said_unwritable:
            _said_unwritable = True
            _warn(_unusable(place, error))
        return
    _stored_bytes += len(content)
    if not _trimmed or _stored_bytes > LIMIT // 8:
        _trimmed, _stored_bytes = True, 0
        trim()


def _write(place: Path, key: str, content: bytes) -> None:
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _private(place.stat()):
        raise PermissionError(errno.EACCES, "it belongs to another user or others may write it")
    descriptor, temporary = tempfile.mkstemp(prefix=f".{key}.", suffix=".tmp", dir=place)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(_MAGIC + _checksum(key, content) + content)
        os.replace(temporary, place / f"{key}.o")
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _unusable(place: Path, error: OSError) -> str:
    """What is wrong with the directory, and what to do."""
    why = error.strerror or str(error)
    remedy = "set DUALGRAPH_CACHE_DIR to such a directory"
    if os.path.isdir(place):
        found = f"{place}, which cannot be used ({why})"
        if os.name == "posix" and not _private(place.stat()):
            remedy = f"chmod 700 {place} if it is yours, or {remedy}"
    elif os.path.lexists(place):
        found = f"{place}, which is not a directory"
        remedy = f"move that file away, or {remedy}"
    else:
        found = f"{place}, which does not exist and cannot be made ({why})"
    return (
        f"got for the cache of machine code {found}; it must be a directory of the user's own that nobody else may "
        f"write; kernels are compiled anew in each process until then: {remedy}"
    )


def probe() -> str:
    """Store one object, load it and delete it: why that fails, or nothing where it works."""
    place, content = directory(), b"probe"
    key = hashlib.sha256(os.urandom(32)).hexdigest()
    try:
        _write(place, key, content)
        return "" if _read(place / f"{key}.o", key) == content else f"an object written to {place} was not found again"
    except OSError as error:
        return _unusable(place, error)
    except _Unfit as why:
        return f"an object written to {place} cannot be used again: {why}; set DUALGRAPH_CACHE_DIR to a local directory"
    finally:
        with contextlib.suppress(OSError):
            (place / f"{key}.o").unlink()


def _files() -> list[tuple[Path, os.stat_result]]:
    found = []
    with contextlib.suppress(OSError):
        for entry in os.scandir(directory()):
            if _OURS.fullmatch(entry.name):
                with contextlib.suppress(OSError):  # another process may have deleted it
                    found.append((Path(entry.path), entry.stat(follow_symlinks=False)))
    return found


def trim(limit: int | None = None) -> None:
    """Delete the files unused for longest until the cache holds three quarters of its limit, if it is beyond it."""
    limit = LIMIT if limit is None else limit
    files = sorted(_files(), key=lambda item: item[1].st_mtime)
    total = sum(status.st_size for _, status in files)
    if total <= limit:
        return
    for path, status in files:
        if total <= limit * 3 // 4:
            break
        with contextlib.suppress(OSError):
            path.unlink()
        total -= status.st_size


def cache_info() -> CacheInfo:
    """Where the cache is, how large, and how often this process found its code there."""
    files = _files()
    return CacheInfo(str(directory()), len(files), sum(status.st_size for _, status in files), LIMIT, _hits, _misses)


def clear_cache() -> int:
    """Delete all cached machine code; returns the number of files deleted. Code already loaded stays valid."""
    count = 0
    for path, _ in _files():
        with contextlib.suppress(OSError):
            path.unlink()
            count += 1
    return count
