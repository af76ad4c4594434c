// Purpose: RemoteMemory by process_vm_readv, scatter/gather: many small tensors cost one system
// call.
// Threads: thread-safe.
// Ownership: none.
#pragma once

#include "transport/remote_memory.hpp"

namespace hpcore::transport {

class ProcessMemory final : public RemoteMemory {
 public:
  explicit ProcessMemory(const RemoteProcess& process) : process_(process) {}
  // Reads one byte of the exposed range: ok, kPeerDead, or kUnsupported when the kernel forbids it.
  [[nodiscard]] Status probe() const;
  [[nodiscard]] Status read(uint64_t offset, uint64_t bytes, const RegionMap& into,
                            const StopCondition& stop) override;
  [[nodiscard]] std::string method() const override { return "process_vm_readv"; }

 private:
  RemoteProcess process_;
};

}  // namespace hpcore::transport
