"""Files written at once or not at all, and only where a regular file is or may come to be.

What is written goes to a temporary, ``.preluflow-<16 hex digits>.tmp``, in the folder of the file it is to become, is
flushed to the disk, and is then moved over the old file by ``os.replace``: at every moment either the old file or the
new one is there, whole.

- *Only regular files are replaced.* A folder, device, FIFO or socket is refused before anything is written.
- *Symbolic links.* A path that is a link is written through, as ``open(path, "w")`` would: the link stays, and the file
  it leads to is replaced, or made. The command line's ``--out`` promises a folder, so there a link that leads out of it
  is refused (``within``). Of a file with several hard links only the name given becomes the new file.
- *Permissions.* A new file has those the umask leaves; one that is replaced keeps its own, and a write-protected one is
  refused.
- *Ctrl-C.* While a temporary exists, SIGINT is answered only at writes to it, and otherwise when it is gone.
- *Temporaries that ``kill -9`` or a power cut left* are removed by the next save into their folder once nothing has
  been written to them for an hour and no process holds their lock.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import secrets
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, BinaryIO

if sys.platform != "win32":
    import fcntl

Write = Callable[[BinaryIO], object]

_TEMPORARY = re.compile(r"\.preluflow-[0-9a-f]{16}\.tmp")
# A save writes all the time; one that has not for so long is dead, or stopped, and then it holds its lock. Age alone
# has to do between the making of a temporary and its lock; and clocks of machines that share a folder differ.
_OLD = 3600.0  # seconds since the last write
_MOVES_OPEN = sys.platform != "win32"  # whether an open file can be moved; then its lock is held until it is

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISLNK, "a symbolic link in a circle"),
)


def write_file(path: str | os.PathLike[str], write: Write, *, within: Path | None = None) -> None:
    """Write a file at once or not at all: ``write`` is given the stream of a temporary that then becomes it.

    Parameters
    ----------
    path : path
        A regular file, or none yet; see above for links.
    write : callable
        Takes a binary stream.
    within : Path, optional
        Folder that ``path`` must not lead out of.

    Raises
    ------
    OSError, ValueError, TypeError
        As ``check_writable``, before ``write`` is called; OSError also if writing fails, and the old file stays.
    """
    place = _place(path, within)
    _remove_leftovers(place.parent)
    _replace(place, write)


def check_writable(path: str | os.PathLike[str], *, within: Path | None = None) -> Path:
    """Refuse, before any work, a file that could not be written at the end; return where ``path`` leads.

    Raises
    ------
    OSError
        If there is something at ``path`` that is not a regular file, or one that is write-protected, or its folder does
        not exist or cannot be written to, or a link leads out of ``within``.
    ValueError, TypeError
        If ``path`` is none.
    """
    place = _place(path, within)
    _replace(place, None)
    return place


def as_path(path: str | os.PathLike[str]) -> Path:
    """Take a path that could be one of a file; TypeError or ValueError if it could not."""
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise TypeError(f"path must be a str or a path, got {type(path).__name__}")
    if "\0" in os.fspath(path):
        raise ValueError(f"path must not contain a null character, got {str(path)!r}")
    if os.fspath(path).endswith(os.sep):
        raise ValueError(f"path must be one of a file, not end in {os.sep!r}, got {str(path)!r}")
    return Path(path)


def describe(mode: int) -> str | None:
    """Say what a file that is not regular is, from its mode; None for a regular one."""
    return None if stat.S_ISREG(mode) else next((name for test, name in _KINDS if test(mode)), "no regular file")


# ---- where a path leads


def _place(path: str | os.PathLike[str], within: Path | None) -> Path:
    """Follow links to where a file is to be, and refuse what must not be replaced there."""
    named = as_path(path)
    shown = repr(str(named))
    mode = None
    try:
        place = Path(os.path.realpath(named))
        leads_out = within is not None and not place.is_relative_to(os.path.realpath(within))
        folder = place.parent if named.is_symlink() else named.parent
        reachable = place.parent.is_dir()
        with contextlib.suppress(FileNotFoundError):
            mode = os.lstat(place).st_mode
    except OSError as error:
        raise type(error)(f"{shown} cannot be written: {error.strerror}") from None
    if leads_out:
        raise PermissionError(f"{shown} is a symbolic link out of its folder, to {str(place)!r}")
    if not reachable:
        raise FileNotFoundError(f"the folder {str(folder)!r} does not exist")
    if mode is None:
        return place
    kind = describe(mode)
    if kind is not None:
        refusal = IsADirectoryError if stat.S_ISDIR(mode) else OSError
        raise refusal(f"{shown} is {kind}; only a regular file can be replaced")
    if not os.access(place, os.W_OK):
        raise PermissionError(f"{shown} is write-protected")
    return place


# ---- writing


def _replace(place: Path, write: Write | None) -> None:
    """Make a temporary, let it be written and move it to ``place``; without ``write`` only see that one can be made."""
    temporary = place.parent / f".preluflow-{secrets.token_hex(8)}.tmp"
    with _HeldInterrupts() as interrupts:
        try:
            with _create(temporary, interrupts) as stream:
                if write is None:
                    return
                _lock(stream)
                _keep_mode(place, temporary)
                write(stream)
                if interrupts.raised is not None:  # and swallowed: what was written may be half of it
                    raise interrupts.raised
                stream.flush()
                os.fsync(stream.fileno())
                if _MOVES_OPEN:
                    os.replace(temporary, place)
            if not _MOVES_OPEN:
                os.replace(temporary, place)
        finally:
            # Not there once it was moved. If it cannot be removed, that must not hide why it was to be.
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _create(temporary: Path, interrupts: _HeldInterrupts) -> _Stream:
    try:
        return _Stream(temporary, interrupts)
    except OSError as error:
        raise type(error)(f"the folder {str(temporary.parent)!r} is not writable: {error.strerror}") from None


def _keep_mode(place: Path, temporary: Path) -> None:
    """Give a temporary the permissions of the file it replaces, if there is one."""
    with contextlib.suppress(FileNotFoundError):
        kept = stat.S_IMODE(os.stat(place).st_mode) & 0o777
        if kept != stat.S_IMODE(os.stat(temporary).st_mode):  # some file systems refuse even to try
            os.chmod(temporary, kept)


def _lock(stream: _Stream) -> None:
    """Lock a temporary until it is closed; the kernel lets go of it with the process, however that ends."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


class _HeldInterrupts:
    """Holds Ctrl-C back until all is cleaned up, but for where ``deliver`` is called.

    Only in the main thread, where Python runs signal handlers, and only if there is one to call. What a handler raised
    is raised at the end, should it have been swallowed or have become another error on its way.
    """

    def __init__(self) -> None:
        self.handler: Any = None
        self.held = False
        self.raised: BaseException | None = None

    def __enter__(self) -> _HeldInterrupts:
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler) and threading.current_thread() is threading.main_thread():
            self.handler = handler
            signal.signal(signal.SIGINT, self._hold)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.handler is not None:
            signal.signal(signal.SIGINT, self.handler)
        if self.raised is not None and error is not self.raised:
            raise self.raised from error
        self.deliver()

    def deliver(self) -> None:
        """Let the handler answer what has been held back."""
        if self.held:
            self.held = False
            try:
                self.handler(signal.SIGINT, sys._getframe())
            except BaseException as error:
                self.raised = error
                raise

    def _hold(self, number: int, frame: FrameType | None) -> None:
        self.held = True


class _Stream(io.BufferedWriter):
    """A new file, in which every write is a point at which Ctrl-C is answered.

    Not between any two bytecodes: ``zipfile``, interrupted where it opens or closes a member, raises other errors.
    """

    def __init__(self, path: Path, interrupts: _HeldInterrupts) -> None:
        super().__init__(io.FileIO(path, "x"))
        self.interrupts = interrupts

    def write(self, data: Any, /) -> int:
        self.interrupts.deliver()
        return super().write(data)


# ---- what a killed process left


def _remove_leftovers(folder: Path) -> None:
    """Remove old temporaries; what cannot be removed, or not be known to be left, stays and is no reason to fail."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name) and _is_left(entry.path):
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)


def _is_left(path: str) -> bool:
    if sys.platform == "win32":  # an open file cannot be removed there
        return time.time() - os.stat(path).st_mtime > _OLD
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or time.time() - found.st_mtime <= _OLD:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    except OSError:  # its writer lives, or the file system has no locks
        return False
    finally:
        os.close(descriptor)
