// Purpose: starts a native service thread: named, deaf to signals (Python's main thread is to get
// them), quick to wake unless it is to work as well as to wake. Threads: thread-safe. Ownership:
// the caller's std::thread. A forked child has no such thread: there the object must be neither
// joined nor destroyed.
#pragma once

#include <functional>
#include <thread>

#include "base/status.hpp"

namespace hpcore {

// `body` must not throw. `name` has at most 15 characters.
Result<std::thread> start_service_thread(const char* name, std::function<void()> body,
                                         bool quick = true);

}  // namespace hpcore
