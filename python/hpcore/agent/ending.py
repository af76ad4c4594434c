"""The end of a job: everybody is told, then made, to go; nothing is left.

One thread. SIGTERM, SIGKILL half a second later, all within a second; with `grace_s`, workers may
first leave by themselves (their collectives have just returned `RosterChanged`).
"""

from __future__ import annotations

import selectors
import signal
import time
from collections.abc import Callable

from hpcore.agent.forge import Forge
from hpcore.agent.workers import WorkerProcess, WorkerTable

TERM_S = 0.5
RELUCTANT_S = 10.0
"""A killed process whose memory the kernel frees slowly is waited for this long."""
TEMPLATE_S = 0.3


class Ending:
    """Ends all workers and the template. `reaped` is called for each worker; `hurry` cuts all
    patience short."""

    def __init__(
        self,
        table: WorkerTable,
        forge: Forge,
        reaped: Callable[[WorkerProcess], None],
        hurry: Callable[[], bool],
    ) -> None:
        self._table = table
        self._forge = forge
        self._reaped = reaped
        self._hurry = hurry

    def run(self, grace_s: float) -> None:
        """Returns when no process is left."""
        self._forge.retire()
        until = time.monotonic() + TEMPLATE_S
        if grace_s > 0:
            self._wait(grace_s)
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)
        self._wait(TERM_S)
        self._signal(signal.SIGKILL)
        while self._forge.fileno() >= 0 and time.monotonic() < until:
            self._wait(0.01, everybody=False)
        self._forge.close()
        self._signal(signal.SIGKILL)
        self._wait(RELUCTANT_S, patient=True)
        for _ in range(50):
            self._table.reap_orphans()
            if not self._table.has_orphans:
                break
            time.sleep(0.002)

    def _signal(self, number: int) -> None:
        for worker in self._table.living():
            self._table.signal(worker, number)

    def _wait(self, seconds: float, everybody: bool = True, patient: bool = False) -> None:
        """Until all are reaped, or for so long."""
        until = time.monotonic() + seconds
        while True:
            self._hear_template()
            for worker in self._table.living():
                if self._table.reap(worker):
                    self._reaped(worker)
            left = until - time.monotonic()
            if left <= 0 or (self._hurry() and not patient):
                return
            if everybody and not self._table.living():
                return
            self._sleep(min(left, 0.02))

    def _sleep(self, seconds: float) -> None:
        with selectors.DefaultSelector() as selector:
            for worker in self._table.living():
                selector.register(worker.pidfd, selectors.EVENT_READ)
            selector.select(seconds)

    def _hear_template(self) -> None:
        """Workers that were on their way are met at the door."""
        with selectors.DefaultSelector() as selector:
            while self._forge.fileno() >= 0:
                selector.register(self._forge.fileno(), selectors.EVENT_READ)
                ready = selector.select(0)
                selector.unregister(self._forge.fileno())
                if not ready:
                    return
                for answer in self._forge.answers():
                    if answer.pid:
                        worker = self._table.forked(answer.request, answer.pid)
                        self._table.signal(worker, signal.SIGTERM)
                    else:
                        self._table.not_forked(answer.request)
