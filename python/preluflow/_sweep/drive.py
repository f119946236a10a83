"""The loop of a sweep: hands cells to an executor, keeps what comes back, and ends well however it ends."""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from preluflow._sweep.claims import Claims
from preluflow._sweep.folder import Folder
from preluflow._sweep.grid import Call, Cell
from preluflow._sweep.values import Finding
from preluflow._sweep.workers import LONGEST_WAIT, Carried, Here, compute, end_processes, processes

WINDOW = 256  # cells handed to an executor that is not ours at a time, of which we do not know how many it runs at once
_LOOK = 10_000  # cells looked at for one that nobody computes, before looking at what came back
_POLL = 0.2  # seconds between looks at what others, who share the folder, have done


@dataclass
class Findings:
    """What is known of a sweep's cells, by key, and how it ended.

    ``ended``: "finished", "interrupted" or "stopped", which is the executor's doing; ``why`` it stopped.
    """

    found: dict[str, Finding] = field(default_factory=dict)
    ended: str = "finished"
    why: str = ""


class Pool:
    """Processes of our own, made anew when one of them dies."""

    def __init__(self, workers: int, num_threads: int) -> None:
        self.workers, self.num_threads = workers, num_threads
        self.pool: ProcessPoolExecutor | None = None

    def executor(self) -> Executor:
        """Return the pool, made when it is first needed."""
        if self.pool is None:
            self.pool = processes(self.workers, self.num_threads)
        return self.pool

    def starts(self) -> bool:
        """Whether a new pool runs anything at all."""
        self.end()
        try:
            self.executor().submit(int).result()
        except BrokenExecutor:
            self.end()
            return False
        return True

    def end(self) -> None:
        """End it at once."""
        if self.pool is not None:
            end_processes(self.pool)
            self.pool = None


class Drive:
    """One sweep's loop.

    Parameters
    ----------
    carried, call, taken, num_threads
        As ``workers.compute`` takes them.
    runs_on : Pool or Executor
    folder : Folder, optional
    retry : bool
        Whether to run failures again.
    bar : progress bar
    """

    def __init__(
        self,
        carried: Carried,
        call: Call,
        taken: tuple[str, ...],
        num_threads: int | None,
        runs_on: Pool | Executor,
        folder: Folder | None,
        retry: bool,
        bar: Any,
    ) -> None:
        self.carried, self.call, self.taken, self.num_threads = carried, call, taken, num_threads
        self.runs_on, self.folder, self.retry, self.bar = runs_on, folder, retry, bar
        self.known = Findings()
        self.waiting: deque[Cell] = deque()
        self.alone: deque[Cell] = deque()  # in flight when a process of ours died: one of them may have been why
        self.flying: dict[Future[Finding], Cell] = {}
        self.deaths: dict[str, int] = {}  # of processes that had only this cell, by key
        self.claims: Claims | None = None
        ours = 2 * runs_on.workers if isinstance(runs_on, Pool) else WINDOW
        self.window = 1 if isinstance(runs_on, Here) else ours

    def run(self, cells: Sequence[Cell]) -> Findings:
        """Compute what is missing of the cells; what is known comes back, all of it or as far as it came."""
        try:
            self._begin(cells)
            self._loop()
        except KeyboardInterrupt:
            self.known.ended = "interrupted"
        finally:
            self._end()
        return self.known

    def _begin(self, cells: Sequence[Cell]) -> None:
        """Take what is kept, and list what is missing."""
        if self.folder is None:
            self.waiting.extend(cells)
            return
        done, failed = self.folder.done(), self.folder.failures()
        retried: dict[str, int] = {}
        for cell in cells:
            finding = self.folder.load(cell.key) if cell.key in done else None
            if finding is None and cell.key in done:
                self.folder.discard(cell.key)
            if finding is None and cell.key in failed:
                finding = None if self.retry else self.folder.failure(cell.key)
                when = self.folder.failure_time(cell.key)
                if finding is None and when is not None:
                    retried[cell.key] = when
            if finding is None:
                self.waiting.append(cell)
            else:
                self._keep(cell, finding)
        if self.waiting:
            self.claims = Claims(self.folder, retried)

    def _loop(self) -> None:
        while self.waiting or self.alone or self.flying:
            others = self._top_up()
            if self.flying:
                ready, _ = wait_for(self.flying, _POLL if others else LONGEST_WAIT, FIRST_COMPLETED)
                self._harvest(ready)
                if not ready and _is_closed(self.runs_on):
                    self._stop(RuntimeError("its client is closed"))
            elif others:
                time.sleep(_POLL)
            if self.known.ended == "stopped":
                return

    # ---- out

    def _top_up(self) -> bool:
        """Hand cells to the executor as far as it has room; whether there are only such left as others compute."""
        if self.alone:
            if not self.flying:
                self._submit(self.alone.popleft())
            return False
        room = self.window - len(self.flying)
        if room <= 0 or not self.waiting:
            return False
        mine = self._claimed(room)
        for cell in mine:
            if self.known.ended == "finished":
                self._submit(cell)
        return not mine

    def _claimed(self, room: int) -> list[Cell]:
        """Take cells to compute now from those waiting; what others have finished is kept."""
        if self.claims is None or self.folder is None:
            return [self.waiting.popleft() for _ in range(min(room, len(self.waiting)))]
        mine = []
        for key, verdict in self.claims.take([cell.key for cell in islice(self.waiting, _LOOK)], room):
            cell = self.waiting.popleft()
            finding = (self.folder.load(key) or self.folder.failure(key)) if verdict == "settled" else None
            if verdict == "mine":
                mine.append(cell)
            elif finding is not None:
                self._keep(cell, finding)
            else:
                self.waiting.append(cell)
        return mine

    def _submit(self, cell: Cell) -> None:
        try:
            executor = self.runs_on.executor() if isinstance(self.runs_on, Pool) else self.runs_on
            sent = (self.carried, self.call, cell.parameters, self.taken, self.num_threads)
            self.flying[executor.submit(compute, *sent)] = cell
        except BrokenExecutor as error:
            if not isinstance(self.runs_on, Pool):
                self._stop(error)
                return
            self.waiting.appendleft(cell)
            self._pool_broke()
        except RuntimeError as error:  # it was shut down
            self._stop(error)

    # ---- back

    def _harvest(self, ready: set[Future[Finding]]) -> None:
        for future in ready:
            cell = self.flying.pop(future, None)
            if cell is None:
                continue
            try:
                finding = future.result()
            except (BrokenExecutor, CancelledError) as error:
                if not isinstance(self.runs_on, Pool):
                    self._stop(error)
                    return
                self.flying[future] = cell
                self._pool_broke()
                return
            except Exception as error:  # not measure's: it could not be sent, or who computed it died too often
                finding = Finding().blame(error)
            if finding.interrupted:
                if isinstance(self.runs_on, Here):
                    raise KeyboardInterrupt
                continue
            self._settle(cell, finding)

    def _settle(self, cell: Cell, finding: Finding) -> None:
        """Save what came of a cell."""
        if self.folder is not None:
            self.folder.save(cell, finding)
        if self.claims is not None:
            self.claims.release(cell.key)
        self._keep(cell, finding)

    def _keep(self, cell: Cell, finding: Finding) -> None:
        self.known.found[cell.key] = finding
        self.bar.update(1)

    def _pool_broke(self) -> None:
        """Make a new pool, and compute one by one what was in flight: one of these cells may have been why."""
        assert isinstance(self.runs_on, Pool)
        back = {future for future in self.flying if future.done() and future.exception() is None}
        lost = [cell for future, cell in self.flying.items() if future not in back]
        self.flying = {future: self.flying[future] for future in back}
        self._harvest(back)
        if not self.runs_on.starts():
            raise RuntimeError(
                "the processes of the sweep do not start; in a script it must be called below "
                '`if __name__ == "__main__":`, for they import the script; workers=1 runs it without them'
            )
        if len(lost) == 1:
            key = lost[0].key
            self.deaths[key] = self.deaths.get(key, 0) + 1
            if self.deaths[key] > 1:  # once may have been somebody's doing
                death = RuntimeError("the process that computed it died twice, as of a crash or for want of memory")
                self._settle(lost.pop(), Finding().blame(death))
        self.alone.extend(lost)

    def _stop(self, error: BaseException) -> None:
        self.known.ended, self.known.why = "stopped", f"{type(error).__name__}: {error}".strip(": ")

    # ---- the end

    def _end(self) -> None:
        """Keep what has come back, stop the rest, let go of the claims."""
        try:
            ready = {future for future in self.flying if future.done() and not future.cancelled()}
            for future in self.flying:
                future.cancel()
            if self.known.ended != "finished":
                kept = {future for future in ready if future.exception() is None}
                try:
                    self._harvest(kept)
                except KeyboardInterrupt:
                    self.known.ended = "interrupted"
        finally:
            if isinstance(self.runs_on, Pool):
                self.runs_on.end()
            if self.claims is not None:
                self.claims.close()
            self.bar.close()
        if self.known.ended == "stopped":
            warnings.warn(
                f"the executor stopped working ({self.known.why}); cells are missing", RuntimeWarning, stacklevel=4
            )


def _is_closed(executor: Any) -> bool:
    """Whether Dask's client has given its scheduler up: futures that were on their way then never come back."""
    return getattr(getattr(executor, "_client", None), "status", "") == "closed"
