#include "transport/process_memory.hpp"

#include <algorithm>
#include <cerrno>
#include <climits>

namespace hpcore::transport {
namespace {

constexpr size_t kVectorLimit = IOV_MAX;  // pieces the kernel takes in one call

Status read_error(pid_t pid, int error_number, const iovec& remote) {
  const std::string who = "process " + std::to_string(pid);
  if (error_number == ESRCH) return {Code::kPeerDead, "reading state: " + who + " is gone"};
  if (error_number == EPERM || error_number == ENOSYS) {
    return {Code::kUnsupported, "reading state: the kernel forbids process_vm_readv of " + who +
                                    " (ptrace rules, seccomp)"};
  }
  return Status::system("process_vm_readv of " + who + " at address " +
                            std::to_string(reinterpret_cast<uintptr_t>(remote.iov_base)) + ", " +
                            std::to_string(remote.iov_len) + " bytes",
                        error_number);
}

}  // namespace

Status ProcessMemory::probe() const {
  if (process_.regions->bytes() == 0) return {};
  char byte = 0;
  iovec local{&byte, 1};
  std::vector<iovec> remote;
  process_.regions->pieces(0, 1, &remote);
  if (process_vm_readv(process_.pid, &local, 1, remote.data(), 1, 0) == 1) return {};
  return read_error(process_.pid, errno, remote[0]);
}

Status ProcessMemory::read(uint64_t offset, uint64_t bytes, const RegionMap& into,
                           const StopCondition& stop) {
  std::vector<iovec> local;
  std::vector<iovec> remote;
  while (bytes > 0) {
    if (stop()) return {Code::kAborted, "reading state was stopped"};
    local.clear();
    remote.clear();
    into.pieces(offset, bytes, &local);
    process_.regions->pieces(offset, bytes, &remote);
    // Same sizes on both sides, so piece i is piece i; a call that ends early is continued where it
    // ended.
    for (size_t first = 0; first < local.size(); first += kVectorLimit) {
      const size_t count = std::min(local.size() - first, kVectorLimit);
      uint64_t expected = 0;
      for (size_t i = 0; i < count; ++i) expected += local[first + i].iov_len;
      const ssize_t copied = process_vm_readv(process_.pid, local.data() + first, count,
                                              remote.data() + first, count, 0);
      if (copied <= 0) return read_error(process_.pid, copied < 0 ? errno : EFAULT, remote[first]);
      offset += static_cast<uint64_t>(copied);
      bytes -= static_cast<uint64_t>(copied);
      if (static_cast<uint64_t>(copied) < expected) break;
    }
  }
  return {};
}

}  // namespace hpcore::transport
