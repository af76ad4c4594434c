// Purpose: which blocks of a mapped .hpd file have been checked against their checksums, and the
// checking: a block at its first touch (about 25 us), its page of the block table before it.
// The bits are this process's own, or, for files of 16 MiB and more, in memory that all processes
// of the node use that have the file open (shared_bits.hpp). Threads: thread-safe after
// construction. Ownership: owns the bits; borrows the mapping and the head.
#pragma once

#include <atomic>
#include <optional>
#include <string>
#include <vector>

#include "base/status.hpp"
#include "dataset/shared_bits.hpp"
#include "dataset/superblock.hpp"

namespace hpcore::dataset {

class BlockChecks {
 public:
  // `map` is the whole file, open as `fd`.
  BlockChecks(const std::string& path, const Head& head, const unsigned char* map, int fd);

  // Blocks that hold bytes [offset, offset + bytes) of the file.
  Status touch(uint64_t offset, uint64_t bytes);
  // Checks the block even if it was checked before, and marks it.
  Status check_block(uint64_t block);
  // The same for bytes that were read by other means than the mapping.
  Status check_block(uint64_t block, const void* data);
  [[nodiscard]] bool checked(uint64_t block) const { return is_set(pages_ + block); }
  [[nodiscard]] uint64_t checked_blocks() const;
  // Checks up to `most` blocks that were not, from the first on; how many it did: 0, all are.
  Result<uint64_t> scrub(uint64_t most);
  Status check_all();
  // Another process made the bits.
  [[nodiscard]] bool joined() const { return shared_.has_value() && shared_->joined(); }
  [[nodiscard]] uint64_t blocks() const { return head_.superblock.blocks; }
  // Where a block lies: offset in the file and bytes.
  [[nodiscard]] uint64_t block_offset(uint64_t block) const;
  [[nodiscard]] uint64_t block_bytes(uint64_t block) const;

 private:
  Status check_page(uint64_t page);
  [[nodiscard]] std::string sections_of(uint64_t offset) const;
  [[nodiscard]] bool is_set(uint64_t bit) const {
    return (words_[bit / 64].load(std::memory_order_acquire) >> (bit % 64) & 1) != 0;
  }
  void set(uint64_t bit) {
    words_[bit / 64].fetch_or(uint64_t{1} << (bit % 64), std::memory_order_release);
  }

  const std::string& path_;
  const Head& head_;
  const unsigned char* map_;
  uint64_t pages_;
  std::optional<SharedBits> shared_;
  std::vector<std::atomic<uint64_t>> own_;
  std::atomic<uint64_t> scrubbed_{0};  // blocks below were checked
  std::atomic<uint64_t>* words_;       // a bit a page of the block table, then a bit a block
};

}  // namespace hpcore::dataset
