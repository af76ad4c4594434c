// Purpose: a .hpd file, mapped read-only: its fields, rows and documents, and the checking of what
// is touched. What copies samples out of it is sample_reader.hpp.
// Limits: a file that is cut short, or whose disk fails, while it is open is an error of the next
// check_size() or of guarded(), never a SIGBUS within them (bus_guard.hpp). Writing to a file that
// is open is a mistake that only a block's first check can see; a build never does it: it puts a
// new file under the name, and who has the old one open keeps it.
// Threads: thread-safe after open.
// Ownership: owns descriptor and mapping; close by destruction.
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/status.hpp"
#include "dataset/block_checks.hpp"
#include "dataset/bus_guard.hpp"
#include "dataset/superblock.hpp"

namespace hpcore::dataset {

struct FieldView {
  std::string name;
  Dtype dtype;
  FieldKind kind;
  std::vector<uint64_t> shape;  // of a row; kVarying: behind its first dimension
  uint64_t item_bytes;          // of the dtype
  uint64_t row_bytes;           // of a token, a fixed row, an item of a varying row
  uint64_t rows;                // tokens, or rows
  uint64_t documents;           // kTokens
  uint64_t vocabulary;
  int64_t separator;  // -1: none
  const unsigned char* data;
  uint64_t data_offset;  // in the file: for reading without the mapping
  uint64_t data_bytes;
};

// Bytes of a varying row within its field's data; tokens of a document within the stream.
struct Range {
  uint64_t begin;
  uint64_t end;
};

class DatasetFile {
 public:
  static Result<std::shared_ptr<DatasetFile>> open(const std::string& path, bool verify);
  ~DatasetFile();
  DatasetFile(const DatasetFile&) = delete;
  DatasetFile& operator=(const DatasetFile&) = delete;

  [[nodiscard]] const Head& head() const { return head_; }
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] bool verifies() const { return verify_; }
  [[nodiscard]] uint64_t fields() const { return views_.size(); }
  [[nodiscard]] const FieldView& field(uint64_t index) const { return views_[index]; }
  // kNotFound names the fields there are.
  Result<uint64_t> find_field(const std::string& name) const;

  // The bytes of a row of a varying field, checked against the field's. Call within guarded().
  Result<Range> row_range(uint64_t field, uint64_t row) const;
  // The tokens of a document; the document that holds a token. Call within guarded().
  Result<Range> document(uint64_t field, uint64_t index) const;
  Result<uint64_t> document_of(uint64_t field, uint64_t token) const;
  // First token of each document, then the number of tokens. Checked only by touch_documents().
  [[nodiscard]] std::span<const uint64_t> documents(uint64_t field) const;
  Status touch_documents(uint64_t field) const {
    const auto table = documents(field);
    return touch_file(head_.fields[field].document_table_offset, table.size_bytes());
  }

  // Checks the blocks of these bytes of a field's data that were not checked before.
  Status touch(uint64_t field, uint64_t first_byte, uint64_t bytes) const {
    return verify_ ? checks_->touch(views_[field].data_offset + first_byte, bytes) : Status();
  }
  [[nodiscard]] BlockChecks& checks() const { return *checks_; }
  // Runs copy(), which reads the mapping and returns a Status. If the file was cut short or its
  // disk fails meanwhile, that is kCorrupt, what was read is worthless, and so is this object.
  template <typename Copy>
  Status guarded(Copy copy) const {
    if (broken_.load(std::memory_order_relaxed)) return unreadable(0);
    const BusGuard guard(map_, map_bytes_);
    const Status status = copy();
    return guard.hit() ? unreadable(guard.offset()) : status;
  }
  // kCorrupt if the file is shorter than when it was opened.
  Status check_size() const;
  // Reads everything; the first part that does not match is the error.
  Status verify_all() const;

 private:
  DatasetFile(std::string path, bool verify) : path_(std::move(path)), verify_(verify) {}
  Status load();
  Status check_page_table() const;
  Status check_padding() const;
  Status unreadable(uint64_t offset) const;
  Status touch_file(uint64_t offset, uint64_t bytes) const {
    return verify_ ? checks_->touch(offset, bytes) : Status();
  }
  [[nodiscard]] Status corrupt(const std::string& what) const;
  [[nodiscard]] Status out_of_range(uint64_t field, const char* what, uint64_t index,
                                    uint64_t limit) const;

  std::string path_;
  bool verify_;
  Fd fd_;
  Head head_;
  std::vector<FieldView> views_;
  const unsigned char* map_ = nullptr;
  uint64_t map_bytes_ = 0;
  mutable std::atomic<bool> broken_{false};  // pages of zeros lie where the file was
  std::unique_ptr<BlockChecks> checks_;
};

}  // namespace hpcore::dataset
