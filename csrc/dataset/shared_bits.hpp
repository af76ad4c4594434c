// Purpose: the bits of blocks that were checked, in memory that all processes of a node share while
// they have the same file open; found through the kernel alone, so that nothing is left behind.
// How: the first to open the file makes a memfd and listens (it never accepts) on an abstract unix
// socket named after user and file (device, inode, time of change, uuid). The others connect, learn
// from the kernel who listens, and open the memfd through that process's /proc/PID/fd. When the
// first ends, the others keep the memory; who comes later begins anew. Whatever fails (other
// user, other pid namespace, no /proc): bits of one's own.
// Threads: find() is thread-safe; the words are atomics.
// Ownership: owns mapping, memfd and socket; move-only.
#pragma once

#include <atomic>
#include <optional>

#include "base/fd.hpp"
#include "base/mapping.hpp"
#include "dataset/superblock.hpp"

namespace hpcore::dataset {

class SharedBits {
 public:
  // Nothing if there is no way to share.
  static std::optional<SharedBits> find(int fd, const Head& head, uint64_t words);
  [[nodiscard]] std::atomic<uint64_t>* words() const;
  // Did another process make them?
  [[nodiscard]] bool joined() const { return !listening_.valid(); }

 private:
  Mapping mapping_;
  Fd memory_;
  Fd listening_;
};

}  // namespace hpcore::dataset
