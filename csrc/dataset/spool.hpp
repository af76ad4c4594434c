// Purpose: an append-only file with a small buffer, for what a build must not hold in memory.
// Threads: one thread.
// Ownership: owns the descriptor; the file stays when it is closed.
#pragma once

#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/status.hpp"

namespace hpcore::dataset {

Status write_at(int fd, const std::string& path, const void* data, size_t bytes, uint64_t offset);
// kCorrupt if the file ends before.
Status read_whole(int fd, const std::string& path, void* to, size_t bytes, uint64_t offset);
Status sync_file(int fd, const std::string& path);
// fsync of the folder that holds `path`: what was renamed there stays renamed.
Status sync_folder_of(const std::string& path);

class Spool {
 public:
  // Creates the file, or opens it and cuts it to `bytes`; kNotFound if it is shorter.
  Status open(const std::string& path, uint64_t bytes);
  Status append(const void* data, size_t bytes);
  Status flush();
  // Flushed and on disk.
  Status sync();
  [[nodiscard]] uint64_t bytes() const { return written_ + buffer_.size(); }
  // Of what was flushed.
  Status read(void* to, size_t bytes, uint64_t offset) const {
    return read_whole(fd_.get(), path_, to, bytes, offset);
  }

 private:
  std::string path_;
  Fd fd_;
  std::vector<unsigned char> buffer_;
  uint64_t written_ = 0;
};

}  // namespace hpcore::dataset
