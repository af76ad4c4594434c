#include "dataset/spool.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace hpcore::dataset {

constexpr size_t kBufferBytes = 256 << 10;

Status write_at(int fd, const std::string& path, const void* data, size_t bytes, uint64_t offset) {
  const auto* at = static_cast<const unsigned char*>(data);
  while (bytes > 0) {
    const ssize_t written = pwrite(fd, at, bytes, static_cast<off_t>(offset));
    if (written < 0) {
      const int error_number = errno;
      if (error_number == EINTR) continue;
      return Status::system("writing " + std::to_string(bytes) + " bytes at " +
                                std::to_string(offset) + " of " + path,
                            error_number);
    }
    at += written;
    offset += static_cast<uint64_t>(written);
    bytes -= static_cast<size_t>(written);
  }
  return {};
}

Status read_whole(int fd, const std::string& path, void* to, size_t bytes, uint64_t offset) {
  auto* at = static_cast<unsigned char*>(to);
  while (bytes > 0) {
    const ssize_t got = pread(fd, at, bytes, static_cast<off_t>(offset));
    if (got < 0) {
      const int error_number = errno;
      if (error_number == EINTR) continue;
      return Status::system("reading " + std::to_string(bytes) + " bytes at " +
                                std::to_string(offset) + " of " + path,
                            error_number);
    }
    if (got == 0) {
      return {Code::kCorrupt, path + " ends at " + std::to_string(offset) + ", " +
                                  std::to_string(bytes) + " bytes early"};
    }
    at += got;
    offset += static_cast<uint64_t>(got);
    bytes -= static_cast<size_t>(got);
  }
  return {};
}

Status sync_file(int fd, const std::string& path) {
  return fsync(fd) == 0 ? Status() : Status::system("syncing " + path, errno);
}

Status sync_folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const Fd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return Status::system("opening folder " + folder, errno);
  return sync_file(fd.get(), "folder " + folder);
}

Status Spool::open(const std::string& path, uint64_t bytes) {
  path_ = path;
  fd_ = Fd(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644));
  if (!fd_.valid()) return Status::system("creating " + path, errno);
  struct stat info{};
  if (fstat(fd_.get(), &info) != 0) return Status::system("looking at " + path, errno);
  if (static_cast<uint64_t>(info.st_size) < bytes) {
    return {Code::kNotFound,
            path + " has " + std::to_string(info.st_size) + " bytes, not " + std::to_string(bytes)};
  }
  if (ftruncate(fd_.get(), static_cast<off_t>(bytes)) != 0)
    return Status::system("cutting " + path, errno);
  buffer_.clear();
  written_ = bytes;
  return {};
}

Status Spool::append(const void* data, size_t bytes) {
  if (buffer_.size() + bytes > kBufferBytes) HPCORE_RETURN_IF_ERROR(flush());
  if (bytes >= kBufferBytes) {
    HPCORE_RETURN_IF_ERROR(write_at(fd_.get(), path_, data, bytes, written_));
    written_ += bytes;
    return {};
  }
  const auto* at = static_cast<const unsigned char*>(data);
  buffer_.insert(buffer_.end(), at, at + bytes);
  return {};
}

Status Spool::flush() {
  HPCORE_RETURN_IF_ERROR(write_at(fd_.get(), path_, buffer_.data(), buffer_.size(), written_));
  written_ += buffer_.size();
  buffer_.clear();
  return {};
}

Status Spool::sync() {
  HPCORE_RETURN_IF_ERROR(flush());
  return sync_file(fd_.get(), path_);
}

}  // namespace hpcore::dataset
