// Purpose: gathers samples of one field of a .hpd file into the caller's memory: sequences of a
// token stream, or fixed rows. Numbers are copied as they are, or widened when unsigned.
// Two ways to read, both through the page cache that all processes of a node share:
//   kMap   copies out of the mapping; what comes next is fetched into the CPU's caches meanwhile
//   kRead  pread: slower for what is in memory, but costs no page tables (a mapping of 1 TB costs
//          each process 2 GB of them once it was touched)
// What is known to come can be announced: it is read, and checked, by the threads of a pool. A
// block that any process of the node has checked is in memory already and is not read twice.
// Threads: thread-safe after make().
// Ownership: shares the file, owns its pool.
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <vector>

#include "dataset/file.hpp"
#include "dataset/pool.hpp"

namespace hpcore::dataset {

enum class ReadMode { kMap, kRead };

// kRead for files above half of the memory or above 64 GiB (128 MiB of page tables a process).
ReadMode choose_mode(uint64_t file_bytes, uint64_t memory_bytes);

struct ReaderOptions {
  uint64_t field = 0;
  // Streams: sample i is tokens [i * stride, i * stride + length). Rows: both 1.
  uint64_t stride = 1;
  uint64_t length = 1;
  ReadMode mode = ReadMode::kMap;
  unsigned threads = 1;
};

struct Target {
  void* data = nullptr;
  unsigned item_bytes = 0;              // of a number: as in the file, or wider
  std::span<const uint32_t> rows = {};  // which row each sample becomes; empty: in order
};

class SampleReader {
 public:
  static Result<std::shared_ptr<SampleReader>> make(std::shared_ptr<DatasetFile> file,
                                                    const ReaderOptions& options);

  [[nodiscard]] uint64_t samples() const { return samples_; }
  [[nodiscard]] uint64_t numbers() const { return numbers_; }  // of a sample
  [[nodiscard]] ReadMode mode() const { return mode_; }

  // Blocks on reads. kInvalid (an index, a width), kCorrupt.
  Status gather(std::span<const uint64_t> samples, const Target& target) const;
  // The samples at positions [first, first + count) of the order under a seed, epoch after epoch.
  Status gather_order(uint64_t seed, uint64_t first, uint64_t count, bool shuffle,
                      const Target& target) const;
  [[nodiscard]] std::vector<uint64_t> order(uint64_t seed, uint64_t first, uint64_t count,
                                            bool shuffle) const;
  // Checks the blocks of a sample, for those who look at it without gathering.
  Status check(uint64_t sample) const;
  [[nodiscard]] uint64_t offset_of(uint64_t sample) const {  // in the file
    return field_->data_offset + sample * step_bytes_;
  }
  [[nodiscard]] uint64_t sample_bytes() const { return sample_bytes_; }
  [[nodiscard]] int fd() const { return file_->fd(); }
  // Starts to read what is not in memory; never blocks. Returns how many blocks it asked for.
  uint64_t will_need(std::span<const uint64_t> samples);

 private:
  struct Copy;
  SampleReader() = default;
  Status copy_part(const Copy& copy, size_t begin, size_t end) const;
  Status copy_mapped(const Copy& copy, size_t begin, size_t end) const;
  Status copy_read(const Copy& copy, size_t begin, size_t end) const;
  Status check_by_reading(uint64_t offset, uint64_t bytes) const;
  Status read_exactly(uint64_t offset, uint64_t bytes, void* to) const;
  void announce(std::span<const uint64_t> samples);
  void warm(const std::vector<uint64_t>& blocks) const;
  [[nodiscard]] Status out_of_range(uint64_t sample) const;

  std::shared_ptr<DatasetFile> file_;
  const FieldView* field_ = nullptr;
  uint64_t field_index_ = 0;
  uint64_t samples_ = 0;
  uint64_t step_bytes_ = 0;
  uint64_t sample_bytes_ = 0;
  uint64_t numbers_ = 0;
  ReadMode mode_ = ReadMode::kMap;
  std::vector<std::atomic<uint64_t>> asked_;  // a bit a block, without checksums: asked for before
  std::unique_ptr<Pool> pool_;
};

// Bytes [begin, begin + bytes) of a field's data, for rows of varying size.
Status copy_bytes(const DatasetFile& file, uint64_t field, uint64_t begin, uint64_t bytes,
                  void* out);

}  // namespace hpcore::dataset
