#include "transport/remote_memory.hpp"

#include <algorithm>

#include "transport/process_memory.hpp"
#include "transport/staging.hpp"

namespace hpcore::transport {

Status RemoteMemory::stream(uint64_t offset, uint64_t bytes, const RegionMap& into,
                            const StopCondition& stop, const Arrival& arrival) {
  for (const uint64_t end = offset + bytes; offset < end;) {
    const uint64_t stretch = std::min(kStretchBytes, end - offset);
    HPCORE_RETURN_IF_ERROR(read(offset, stretch, into, stop));
    arrival(offset, stretch);
    offset += stretch;
  }
  return {};
}

Result<std::unique_ptr<RemoteMemory>> open_remote_memory(const RemoteProcess& process,
                                                         Method method) {
  if (method != Method::kStaging) {
    auto memory = std::make_unique<ProcessMemory>(process);
    const Status status = memory->probe();
    if (status.ok()) return std::unique_ptr<RemoteMemory>(std::move(memory));
    if (status.code() != Code::kUnsupported || method == Method::kProcessMemory) return status;
  }
  if (process.staging == nullptr) {
    return Status(Code::kUnsupported, "process " + std::to_string(process.pid) +
                                          " cannot be read and has no staging area");
  }
  return std::unique_ptr<RemoteMemory>(std::make_unique<StagingMemory>(process));
}

}  // namespace hpcore::transport
