// Purpose: writes a .hpd file, document by document, in one pass and with one block of memory. The
// file appears under its name only when it is whole: it is written beside it, synced, renamed.
// Threads: one thread.
// Ownership: owns the descriptor and, until finish(), the temporary file (removed on destruction).
#pragma once

#include <string>
#include <vector>

#include "base/digest.hpp"
#include "base/status.hpp"
#include "dataset/format.hpp"

namespace hpcore::dataset {

struct WriterOptions {
  uint32_t token_bytes = 1;  // 1 or 2
  uint32_t vocabulary = 256;
  int64_t separator = -1;  // token appended to each document; -1: none
};

class DatasetWriter {
 public:
  DatasetWriter(std::string path, WriterOptions options);
  ~DatasetWriter();
  DatasetWriter(const DatasetWriter&) = delete;
  DatasetWriter& operator=(const DatasetWriter&) = delete;

  Status open();
  // One document: every byte is a token.
  Status append_bytes(const void* data, size_t bytes);
  // Writes tables and superblock, syncs, renames.
  Result<Superblock> finish();

 private:
  Status put_token_run(const unsigned char* bytes, size_t count);
  Status flush_block();
  Status write_all(const void* data, size_t bytes, uint64_t offset);
  Status settle_file(Superblock* block);
  Status publish_file();

  std::string path_;
  std::string temporary_;
  WriterOptions options_;
  int fd_ = -1;
  std::vector<unsigned char> block_;
  std::vector<uint32_t> block_crcs_;
  std::vector<uint64_t> documents_;
  uint64_t tokens_ = 0;
  uint64_t data_bytes_ = 0;  // flushed
};

}  // namespace hpcore::dataset
