// Purpose: the channel of all ranks of a generation on this node, in the node segment's own memory:
// no look-up, nothing to allocate, nothing to clear. Slot i of `slots` holds rank i.
// Threads: thread-safe. Ownership: the channel keeps the segment mapped.
// Lifecycle: one communicator over it for each generation and worker.
#pragma once

#include <vector>

#include "collective/channel.hpp"
#include "roster/worker.hpp"

namespace hpcore::collective {

// kInvalid: rank's slot is not this worker's, a slot occurs twice or does not exist.
Result<std::shared_ptr<Channel>> world_channel(const std::shared_ptr<roster::Worker>& worker,
                                               uint64_t generation, int rank,
                                               const std::vector<int>& slots);

}  // namespace hpcore::collective
