// Purpose: make the calling thread run soon after it is woken, also on busy cores: it asks the
// scheduler for a short slice (sched_setattr with sched_runtime, Linux 6.12 on, no privilege
// needed). Fails silently on older kernels. Threads: acts on the calling thread only.
#pragma once

namespace hpcore {

// True if the kernel accepted it.
bool prefer_short_slice();

}  // namespace hpcore
