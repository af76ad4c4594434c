// Purpose: names a process so that the next owner of its pid is not taken for it, and says whether
// it still runs. Threads: plain values; process_runs() reads /proc.
#pragma once

#include <cstdint>

namespace hpcore {

struct ProcessIdentity {
  int pid = 0;               // 0: nobody
  uint64_t start_ticks = 0;  // since boot, of the process's start
};

ProcessIdentity this_process();

// False once it has ended, also before its parent has waited for it. True where /proc does not
// tell.
bool process_runs(const ProcessIdentity& process);

}  // namespace hpcore
