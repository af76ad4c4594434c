"""A rank with tensors on its GPU and on the CPU in one group; argument: the backend."""

from __future__ import annotations

import os
import sys

import torch
import torch.distributed as dist


def main() -> None:
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(sys.argv[1], init_method="hpcore://cuda-ranks")
    rank = dist.get_rank()
    on_gpu = torch.full((1 << 16,), rank + 1.0, device="cuda")
    on_cpu = torch.full((1 << 16,), rank + 1.0)
    dist.all_reduce(on_gpu)
    dist.all_reduce(on_cpu)
    group = dist.new_group()
    again = torch.full((4,), rank + 1.0, device="cuda")
    works = [dist.all_reduce(again, group=group, async_op=True)]
    for work in works:
        work.wait()
    torch.cuda.synchronize()
    dist.barrier()
    print(f"cuda {on_gpu[0].item()} cpu {on_cpu[0].item()} again {again[0].item()}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
