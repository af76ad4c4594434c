"""Agent and workers of one segment as threads of one process, for ThreadSanitizer: see
test_roster_threads.py. A worker's sentinel lives as long as its process: hence a script."""

from __future__ import annotations

import threading

from hpcore import _core

FOREVER_S = 120.0
SLOTS = [0, 1, 2]
GENERATIONS = 12


def work(worker: _core.Worker, seen: list[dict[int, int]]) -> None:
    """Commits until the generation ends, writes down how far it came; then the next."""
    generation = 0
    while generation < GENERATIONS:
        notice = worker.wait_roster(generation, FOREVER_S)
        assert notice is not None
        generation, step = notice[0], len(notice[1]) - 1
        while worker.ready(generation, step):
            worker.progress(step, 1)
            worker.set_rank_blob(worker.slot, step, b"%d" % step)
            if worker.wait_commit(generation, step, SLOTS, FOREVER_S) != "committed":
                break
            step += 1
            worker.version = step
        seen[worker.slot][generation] = step
        worker.post(1, step, generation, "t" * 3000, FOREVER_S)
        while not worker.revoked(generation):
            pass


def main() -> None:
    segment = _core.NodeSegment.create(3, staging_bytes=4096, store_bytes=4096)
    watch = _core.AgentWatch(segment)
    seen: list[dict[int, int]] = [{} for _ in SLOTS]
    threads = []
    for slot in SLOTS:
        segment.prepare_slot(slot, slot + 1)
        watch.watch(slot, slot + 1)
        worker = _core.Worker.attach(segment, slot, slot + 1)
        threads.append(threading.Thread(target=work, args=(worker, seen)))
        threads[-1].start()
    committed = 0
    for generation in range(1, GENERATIONS + 1):
        segment.set_ranked(SLOTS)
        segment.open_commit(SLOTS, generation, committed)
        segment.publish(generation, b"x" * (committed + 1))
        while segment.slot_info(generation % 3).commit_steps < committed + 10:
            for slot in SLOTS:
                segment.rank_blob(slot)
        closers = [
            threading.Thread(target=segment.close_generation, args=(generation,)) for _ in SLOTS
        ]
        for closer in closers:
            closer.start()
        committed = min(segment.close_generation(generation))
        for closer in closers:
            closer.join()
        mails = 0
        while mails < len(SLOTS):
            event = watch.next_event(FOREVER_S)
            assert event is not None
            if event.kind == "mail":
                mails += 1
                assert (event.flags, event.step) == (generation, committed), event.step
    for thread in threads:
        thread.join()
    for slot in SLOTS:
        assert seen[slot][GENERATIONS] == committed
        watch.unwatch(slot)
    watch.close()


main()
