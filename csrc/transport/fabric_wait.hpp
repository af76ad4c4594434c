// Purpose: waits until a completion queue of some ports may have something: asleep on their
// descriptors where they have them, else by polling less and less often.
// Threads: one thread. Ownership: none of the ports.
#pragma once

#include <chrono>
#include <vector>

#include "transport/fabric_rail.hpp"

namespace hpcore::transport {

class FabricWait {
 public:
  // `wake_fd`: a descriptor that ends a wait when it becomes readable; -1: none.
  explicit FabricWait(const std::vector<FabricPort>& ports, int wake_fd = -1);
  void wait(std::chrono::milliseconds limit);
  // Something was found: the next wait begins eagerly again.
  void found() { idle_rounds_ = 0; }

 private:
  const std::vector<FabricPort>& ports_;
  int wake_fd_;
  bool sleeps_;  // all ports have descriptors
  unsigned idle_rounds_ = 0;
};

}  // namespace hpcore::transport
