// Purpose: a .hpd file, mapped read-only: checks it, gathers sequences of tokens from it. A block's
// checksum is verified when this process first touches it (about 25 us), then never again.
// Limits: the file must not change while it is open. A file that was cut short is seen at open and
// at each gather; one that is cut while a gather copies from the cut part still ends in SIGBUS.
// Threads: thread-safe after open.
// Ownership: owns descriptor and mapping; close by destruction.
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.hpp"
#include "dataset/format.hpp"

namespace hpcore::dataset {

// Sample i is tokens [i * stride, i * stride + length).
struct SampleShape {
  uint64_t stride = 1;
  uint64_t length = 1;
};

class DatasetFile {
 public:
  static Result<std::shared_ptr<DatasetFile>> open(const std::string& path, bool verify);
  ~DatasetFile();
  DatasetFile(const DatasetFile&) = delete;
  DatasetFile& operator=(const DatasetFile&) = delete;

  [[nodiscard]] const Superblock& superblock() const { return superblock_; }
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] uint64_t samples(const SampleShape& shape) const;
  // Row r of `out` [indices, length] becomes sample indices[r], widened to 64 bits.
  Status gather(std::span<const uint64_t> indices, const SampleShape& shape, int64_t* out) const;
  // Tokens [first, first + count): for documents.
  Status tokens(uint64_t first, uint64_t count, int64_t* out) const;
  // First token of each document, then the number of tokens.
  [[nodiscard]] std::span<const uint64_t> documents() const;
  // Reads everything; the first block that does not match is the error.
  Status verify_all() const;

 private:
  DatasetFile(std::string path, bool verify) : path_(std::move(path)), verify_(verify) {}
  Status load();
  Status check_superblock(uint64_t size_bytes) const;
  Status check_tables() const;
  Status check_size() const;
  Status check_block(uint64_t block) const;
  Status touch(uint64_t first_byte, uint64_t bytes) const;
  void widen(uint64_t first_token, uint64_t count, int64_t* out) const;
  [[nodiscard]] Status corrupt(const std::string& what) const;

  std::string path_;
  bool verify_;
  int fd_ = -1;
  const unsigned char* map_ = nullptr;
  uint64_t map_bytes_ = 0;
  Superblock superblock_;
  mutable std::vector<std::atomic<uint64_t>> verified_;  // a bit a block
};

}  // namespace hpcore::dataset
