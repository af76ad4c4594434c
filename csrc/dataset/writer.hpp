// Purpose: writes a .hpd file in one pass, whatever its size, in a few hundred KiB of memory. The
// file appears under its name only when it is whole: it is written in the folder OUT.building,
// synced, renamed. The first field's data go straight into it; other fields' and all tables through
// spools in that folder.
// Lifecycle: open(); if resumed(), go on behind what its note says, or restart(); append() and
// end_rows(); checkpoint() now and then; finish(), or give_up(), or keep() for a later resumption.
// A destroyed writer that was neither finished nor kept removes the folder.
// Threads: one thread.
// Ownership: owns the folder's lock and files.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/digest.hpp"
#include "base/status.hpp"
#include "dataset/block_stream.hpp"
#include "dataset/build_folder.hpp"
#include "dataset/spool.hpp"
#include "dataset/superblock.hpp"

namespace hpcore::dataset {

class DatasetWriter {
 public:
  // Of each field: name, dtype, kind, dimensions, shape, vocabulary, separator.
  DatasetWriter(std::string path, std::vector<FieldRecord> fields, std::string metadata);
  ~DatasetWriter();
  DatasetWriter(const DatasetWriter&) = delete;
  DatasetWriter& operator=(const DatasetWriter&) = delete;

  Status open();
  // The note of the last checkpoint, if the folder holds one of a build with the same fields.
  [[nodiscard]] const std::optional<std::string>& resumed() const { return resumed_; }
  Status restart();

  // Bytes of the field's data: tokens, rows, or pieces of them.
  Status append(uint64_t field, const void* data, size_t bytes);
  // Documents of so many tokens, or varying rows of so many items, end behind the ones before.
  Status end_rows(uint64_t field, std::span<const uint64_t> lengths);
  // From here a killed build goes on: all of it is on disk.
  Status checkpoint(const std::string& note);
  // Tables, superblock, sync, rename. kInvalid if there is nothing, or rows and data do not agree.
  Result<Head> finish();
  void keep();
  void give_up();

 private:
  struct Column {
    FieldRecord record;
    uint64_t data_bytes = 0;
    uint64_t ended = 0;  // tokens or bytes that documents or rows account for
    Spool data;          // unused for the first field
    Spool starts;        // kTokens, kVarying: u64 a document or row
  };
  [[nodiscard]] bool has_starts(const Column& column) const {
    return column.record.kind != FieldKind::kFixed;
  }
  Status check_open(uint64_t field = 0) const;
  Status open_files(const JournalEntry& entry);
  [[nodiscard]] JournalEntry position() const;
  [[nodiscard]] uint64_t identity() const;
  Status check_rows() const;
  Status settle_data(size_t index);
  Status settle_documents(Column* column);
  Status settle_rows(Column* column);
  Result<uint32_t> settle_blocks(Digester* content);
  Status publish();

  std::string path_;
  std::vector<Column> columns_;
  Head head_;
  BuildFolder folder_;
  BlockStream stream_;
  std::optional<std::string> resumed_;
  bool open_ = false;
};

}  // namespace hpcore::dataset
