#include "transport/remote_memory.hpp"

#include <algorithm>

#include "transport/mapped_memory.hpp"
#include "transport/process_memory.hpp"
#include "transport/staging.hpp"

namespace hpcore::transport {
namespace {

void note(std::string* why_not, const Status& status) {
  if (why_not != nullptr) *why_not += (why_not->empty() ? "" : "; ") + status.message();
}

Result<std::unique_ptr<RemoteMemory>> open_unmapped(const RemoteProcess& process, Method method,
                                                    std::string* why_not) {
  if (method != Method::kStaging) {
    auto memory = std::make_unique<ProcessMemory>(process);
    const Status status = memory->probe();
    if (status.ok()) return std::unique_ptr<RemoteMemory>(std::move(memory));
    if (status.code() != Code::kUnsupported || method == Method::kProcessMemory) return status;
    note(why_not, status);
  }
  if (process.staging == nullptr) {
    return Status(Code::kUnsupported, "process " + std::to_string(process.pid) +
                                          " cannot be read and has no staging area");
  }
  return std::unique_ptr<RemoteMemory>(std::make_unique<StagingMemory>(process));
}

Result<std::unique_ptr<RemoteMemory>> open_mapped(const RemoteProcess& process,
                                                  std::string* why_not) {
  if (process.mappings == nullptr || process.arenas.empty()) {
    return Status(Code::kUnsupported,
                  "process " + std::to_string(process.pid) + " has no arena that could be mapped");
  }
  std::vector<std::shared_ptr<ArenaMappings::View>> views;
  for (const ArenaPlace& arena : process.arenas) {
    auto view = process.mappings->open(process.pid, arena);
    if (!view.ok()) return view.status();
    views.push_back(std::move(view.value()));
  }
  std::unique_ptr<RemoteMemory> other;
  if (MappedMemory::needs_other(process)) {
    auto made = open_unmapped(process, Method::kProbe, why_not);
    if (!made.ok()) return made.status();
    other = std::move(made.value());
  }
  return std::unique_ptr<RemoteMemory>(
      std::make_unique<MappedMemory>(process, std::move(views), std::move(other)));
}

}  // namespace

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

Status RemoteMemory::read_digested(uint64_t offset, uint64_t bytes, const RegionMap& into,
                                   Digester* digester, const StopCondition& stop) {
  std::vector<iovec> pieces;
  return stream(offset, bytes, into, stop, [&](uint64_t at, uint64_t length) {
    pieces.clear();
    into.pieces(at, length, &pieces);
    for (const iovec& piece : pieces) digester->update(piece.iov_base, piece.iov_len);
  });
}

Status RemoteMemory::digest(uint64_t offset, uint64_t bytes, Digester* digester,
                            const StopCondition& stop) {
  std::vector<std::byte> buffer(std::min(bytes, kStretchBytes));
  const auto address = reinterpret_cast<uint64_t>(buffer.data());
  while (bytes > 0) {
    const uint64_t length = std::min(bytes, kStretchBytes);
    // A range that has only its last `length` bytes in memory: nothing before is touched.
    const RegionMap window({{0, offset}, {address, length}});
    HPCORE_RETURN_IF_ERROR(read(offset, length, window, stop));
    digester->update(buffer.data(), length);
    offset += length;
    bytes -= length;
  }
  return {};
}

Result<std::unique_ptr<RemoteMemory>> open_remote_memory(const RemoteProcess& process,
                                                         Method method, std::string* why_not) {
  if (method == Method::kArena) return open_mapped(process, why_not);
  if (method == Method::kProbe && !process.arenas.empty() && process.mappings != nullptr) {
    auto mapped = open_mapped(process, why_not);
    if (mapped.ok() || mapped.status().code() == Code::kPeerDead) return mapped;
    note(why_not, mapped.status());
  }
  return open_unmapped(process, method, why_not);
}

}  // namespace hpcore::transport
