// Purpose: which blocks of a mapped .hpd file have been checked against their checksums, and the
// checking: a block at its first touch (about 25 us), its page of the block table before it.
// The bits are this process's own, or, after share(), in memory that all processes of the node use.
// Threads: thread-safe after construction and share().
// Ownership: owns the bits; borrows the mapping and the head.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/mapping.hpp"
#include "base/status.hpp"
#include "dataset/superblock.hpp"

namespace hpcore::dataset {

class BlockChecks {
 public:
  // `map` is the whole file.
  BlockChecks(const std::string& path, const Head& head, const unsigned char* map);

  // Blocks that hold bytes [offset, offset + bytes) of the file.
  Status touch(uint64_t offset, uint64_t bytes);
  // Checks the block even if it was checked before, and marks it.
  Status check_block(uint64_t block);
  // The same for bytes that were read by other means than the mapping.
  Status check_block(uint64_t block, const void* data);
  [[nodiscard]] bool checked(uint64_t block) const { return is_set(pages_ + block); }
  [[nodiscard]] uint64_t checked_blocks() const;
  [[nodiscard]] uint64_t blocks() const { return head_.superblock.blocks; }
  // Where a block lies: offset in the file and bytes.
  [[nodiscard]] uint64_t block_offset(uint64_t block) const;
  [[nodiscard]] uint64_t block_bytes(uint64_t block) const;

 private:
  Status check_page(uint64_t page);
  [[nodiscard]] std::string section_of(uint64_t offset) const;
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
  std::vector<std::atomic<uint64_t>> own_;
  std::atomic<uint64_t>* words_;  // a bit a page of the block table, then a bit a block
};

}  // namespace hpcore::dataset
