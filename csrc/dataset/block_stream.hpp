// Purpose: the part of a .hpd file that has checksums, written from front to end: what is appended
// is cut into blocks, whose checksums go to a spool.
// Threads: one thread.
// Ownership: owns the descriptor of the unfinished file and the spool.
#pragma once

#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/status.hpp"
#include "dataset/format.hpp"
#include "dataset/spool.hpp"

namespace hpcore::dataset {

class BlockStream {
 public:
  // A new file, or one that goes on at `offset`; kNotFound if there is less of it.
  Status open(const std::string& path, const std::string& crcs_path, uint64_t offset);
  Status append(const void* data, size_t bytes);
  Status pad_to(uint64_t alignment);
  // Where the next byte goes, in the file.
  [[nodiscard]] uint64_t offset() const { return offset_; }
  // All that was appended is in the file (the last, partial block as well) and on disk.
  Status sync();
  // The last block is closed: nothing may be appended any more. A checksum for each block.
  Status close_blocks();
  [[nodiscard]] Spool& crcs() { return crcs_; }
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  Status flush_block();

  std::string path_;
  Fd fd_;
  Spool crcs_;
  std::vector<unsigned char> block_;  // the bytes before offset_ that fill no block yet
  uint64_t offset_ = 0;
};

}  // namespace hpcore::dataset
