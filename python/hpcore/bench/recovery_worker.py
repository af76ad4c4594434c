"""A rank of `hpcore bench recovery`: trains the workload until the file named by the second
argument is there.

    hpcore run recovery_worker.py STATE_MIB STOP_FILE
"""

from __future__ import annotations

import os
import sys

import hpcore
from hpcore.bench import workload


def main() -> None:
    """Trains; all ranks leave the loop after the same step."""
    state_mib, stop_file = int(sys.argv[1]), sys.argv[2]
    job = hpcore.Job(global_batch=4, micro_batch=1, seed=1)
    model, optimizer = workload.build(state_mib)
    job.replicate(model)
    job.track(model=model, optimizer=optimizer)
    for step in job.steps(total=1 << 30):
        stop = 0.0
        with step:
            for batch in step.micro_batches():
                x = workload.batch_of(step.index, batch.index)
                (model(x) * step.weight(batch)).backward()
            sums = step.commit(optimizer, stop=float(os.path.exists(stop_file)))
            model.touch(step.index)
            stop = sums["stop"]
        if stop and not (step.discarded or job.rehearsing):
            break


if __name__ == "__main__":
    main()
