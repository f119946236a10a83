"""Who computes which cell, where several processes share a folder: no cell is computed twice.

Every sweep has a file of its own in ``claims/``, which it holds the lock of as long as it lives and which lists the
keys of the cells it is computing. The kernel lets go of the lock when the process ends, however it ends, and what it
had claimed is free again. Claims are made one process after the other, under the lock of ``claims/lock``.

Where there are no such locks (Windows, some network file systems) nobody knows of others: a cell may then be computed
by two processes, and the one result replaces the other, which is equal.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from preluflow._sweep.folder import Folder

if sys.platform != "win32":
    import fcntl

_ENDING = ".claims"


class Claims:
    """The claims of one sweep on the cells of a folder; to be closed."""

    def __init__(self, folder: Folder, retry: dict[str, int]) -> None:
        self.folder = folder
        self.retry = retry  # failures to run again, and when they were recorded
        self.mine: set[str] = set()
        self.place = folder.path / "claims" / f"{secrets.token_hex(8)}{_ENDING}"
        with self._turn():  # nobody may find the file before it is locked
            try:
                self.stream: IO[str] = open(self.place, "x", encoding="ascii")
            except OSError as error:
                raise type(error)(f"folder: {str(self.place.parent)!r} is not writable: {error.strerror}") from None
            self.works = _lock(self.stream, wait=True)  # for who only looks holds it for a moment
            self._write()

    def take(self, wanted: Iterable[str], count: int) -> list[tuple[str, str]]:
        """Go through keys until ``count`` of them are claimed; returns those gone through, and what of each.

        "mine" is ours now, "held" is another's, "settled" is done or has failed meanwhile.
        """
        verdicts: list[tuple[str, str]] = []
        taken = 0
        with self._turn():
            others = self._of_others()
            for key in wanted:
                if taken == count:
                    break
                verdict = "held" if key in others else "mine" if self._is_open(key) else "settled"
                if verdict == "mine":
                    self.mine.add(key)
                    taken += 1
                verdicts.append((key, verdict))
            self._write()
        return verdicts

    def release(self, key: str) -> None:
        """Let go of a cell; the file says so with the next claim, for who finds a result does not ask."""
        self.mine.discard(key)

    def close(self) -> None:
        """Let go of all."""
        self.place.unlink(missing_ok=True)
        self.stream.close()

    def _is_open(self, key: str) -> bool:
        """Whether a cell is still to be computed; the record of a failure that is to be tried again is removed."""
        if self.folder.is_done(key):
            return False
        when = self.folder.failure_time(key)
        if when is None:
            return True
        if self.retry.get(key) != when:
            return False
        self.folder.forget_failure(key)
        return True

    def _write(self) -> None:
        self.stream.seek(0)
        self.stream.truncate()
        self.stream.write("\n".join([f"{socket.gethostname()} {os.getpid()}", *sorted(self.mine)]))
        self.stream.flush()

    def _of_others(self) -> set[str]:
        found: set[str] = set()
        if not self.works:
            return found
        for place in self.place.parent.glob(f"*{_ENDING}"):
            if place != self.place:
                found |= _claimed(place)
        return found

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait for our turn."""
        try:
            with open(self.folder.path / "claims" / "lock", "a", encoding="ascii") as stream:
                _lock(stream, wait=True)
                yield
        except PermissionError as error:
            raise PermissionError(f"folder: {str(self.folder.path)!r} is not writable: {error.strerror}") from None


def in_progress(folder: Folder) -> set[str]:
    """Keys of the cells that processes which are alive are computing."""
    found: set[str] = set()
    for place in (folder.path / "claims").glob(f"*{_ENDING}"):
        found |= _claimed(place, remove=False)
    return found


def _claimed(place: Path, *, remove: bool = True) -> set[str]:
    """Keys that the owner of a file has claimed, none if it has ended; its file is then removed."""
    try:
        with open(place, encoding="ascii", errors="replace") as stream:
            owner, *keys = stream.read().split("\n")
            if not _lock(stream, shared=True) and not _has_ended(owner):
                return set(keys)
    except OSError:
        return set()
    if remove:
        place.unlink(missing_ok=True)
    return set()


def _has_ended(owner: str) -> bool:
    """Whether a process of this machine is no more, whose children may still have its lock, having been forked."""
    host, _, number = owner.rpartition(" ")
    if host != socket.gethostname() or not number.isdigit():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _lock(stream: IO[str], *, wait: bool = False, shared: bool = False) -> bool:
    """Lock a file as long as it is open; whether that went."""
    if sys.platform == "win32":
        return False
    else:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(stream, kind if wait else kind | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
