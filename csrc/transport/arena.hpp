// Purpose: memory for tensors that other processes of the node can map: a memfd, sealed so that it
// can neither shrink nor grow, all of it allocated at once (a write cannot fail later). A receiver
// that maps it copies from it by plain loads: no system call, no leave to ptrace (it needs that of
// /proc/<pid>/fd: same user), and on the side of the source nothing at all.
// Its price: huge pages only where the kernel gives them to shared memory (transparent_hugepage/
// shmem_enabled); see docs/streaming.md for when that pays.
// Threads: thread-safe after creation. Ownership: move-only; owns descriptor and mapping. A
// receiver's mapping keeps the memory alive after the arena and its process are gone.
#pragma once

#include <map>
#include <memory>
#include <mutex>

#include "base/fd.hpp"
#include "base/mapping.hpp"
#include "transport/regions.hpp"

namespace hpcore::transport {

// How another process finds an arena and knows it for the right one.
struct ArenaPlace {
  int fd = -1;           // in the process that owns it
  uint64_t inode = 0;    // of the memfd: no other that lives now has the same
  uint64_t address = 0;  // where its owner has it mapped
  uint64_t bytes = 0;
};

class Arena {
 public:
  // kNoSpace when it would leave less than a tenth of the memory that is available.
  static Result<Arena> create(uint64_t bytes);
  [[nodiscard]] ArenaPlace place() const;
  [[nodiscard]] std::byte* data() const { return mapping_.data(); }
  [[nodiscard]] uint64_t huge_bytes() const { return huge_bytes_; }  // that lie on huge pages

 private:
  Arena(Fd fd, Mapping mapping, uint64_t inode, uint64_t huge_bytes)
      : fd_(std::move(fd)), mapping_(std::move(mapping)), inode_(inode), huge_bytes_(huge_bytes) {}
  Fd fd_;
  Mapping mapping_;
  uint64_t inode_;
  uint64_t huge_bytes_;
};

// Other processes' arenas as this one has them mapped, read-only. Mapping 1 GiB on small pages
// takes longer than to copy it, so it is done before it is needed. Thread-safe.
class ArenaMappings {
 public:
  class View {  // unmaps itself
   public:
    View(const std::byte* data, uint64_t bytes) : data_(data), bytes_(bytes) {}
    View(const View&) = delete;
    View& operator=(const View&) = delete;
    ~View();
    [[nodiscard]] const std::byte* data() const { return data_; }

   private:
    const std::byte* data_;
    uint64_t bytes_;
  };

  // Maps it, pages present, unless it is mapped already. kPeerDead; kUnsupported when the process's
  // descriptors may not be opened; kMismatch when the descriptor is another file by now, or one
  // that could shrink under the reader.
  Result<std::shared_ptr<View>> open(pid_t pid, const ArenaPlace& place);
  // Unmaps all but these (by inode); views in use live on.
  void keep_only(const std::vector<uint64_t>& inodes);
  [[nodiscard]] uint64_t mapped_bytes() const;

 private:
  mutable std::mutex mutex_;
  std::map<uint64_t, std::pair<uint64_t, std::shared_ptr<View>>> views_;  // inode -> bytes, view
};

}  // namespace hpcore::transport
