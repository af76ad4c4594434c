#include "dataset/block_stream.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/digest.hpp"

namespace hpcore::dataset {

Status BlockStream::open(const std::string& path, const std::string& crcs_path, uint64_t offset) {
  path_ = path;
  fd_ = Fd(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644));
  if (!fd_.valid()) return Status::system("creating " + path, errno);
  struct stat info{};
  if (fstat(fd_.get(), &info) != 0) return Status::system("looking at " + path, errno);
  const bool fresh = offset == kDataAlignment;
  if (!fresh && static_cast<uint64_t>(info.st_size) < offset) {
    return {Code::kNotFound, path + " has " + std::to_string(info.st_size) + " bytes, not " +
                                 std::to_string(offset)};
  }
  if (ftruncate(fd_.get(), static_cast<off_t>(fresh ? 0 : offset)) != 0)
    return Status::system("cutting " + path, errno);
  const uint64_t blocks = (offset - kDataAlignment) / kBlockBytes;
  HPCORE_RETURN_IF_ERROR(crcs_.open(crcs_path, blocks * sizeof(uint32_t)));
  const size_t partial = (offset - kDataAlignment) % kBlockBytes;
  block_.reserve(kBlockBytes);
  block_.resize(partial);
  offset_ = offset;
  return read_whole(fd_.get(), path_, block_.data(), partial, offset - partial);
}

Status BlockStream::flush_block() {
  const uint32_t crc = crc32c(block_.data(), block_.size());
  HPCORE_RETURN_IF_ERROR(
      write_at(fd_.get(), path_, block_.data(), block_.size(), offset_ - block_.size()));
  block_.clear();
  return crcs_.append(&crc, sizeof crc);
}

Status BlockStream::append(const void* data, size_t bytes) {
  const auto* at = static_cast<const unsigned char*>(data);
  while (bytes > 0) {
    const size_t taken = std::min(kBlockBytes - block_.size(), bytes);
    block_.insert(block_.end(), at, at + taken);
    at += taken;
    bytes -= taken;
    offset_ += taken;
    if (block_.size() == kBlockBytes) HPCORE_RETURN_IF_ERROR(flush_block());
  }
  return {};
}

Status BlockStream::pad_to(uint64_t alignment) {
  static const std::vector<unsigned char> zeros(64 << 10);
  uint64_t left = align_up(offset_, alignment) - offset_;
  while (left > 0) {
    const size_t taken = std::min<uint64_t>(left, zeros.size());
    HPCORE_RETURN_IF_ERROR(append(zeros.data(), taken));
    left -= taken;
  }
  return {};
}

Status BlockStream::sync() {
  HPCORE_RETURN_IF_ERROR(
      write_at(fd_.get(), path_, block_.data(), block_.size(), offset_ - block_.size()));
  HPCORE_RETURN_IF_ERROR(crcs_.sync());
  return sync_file(fd_.get(), path_);
}

Status BlockStream::close_blocks() {
  if (!block_.empty()) HPCORE_RETURN_IF_ERROR(flush_block());
  return crcs_.flush();
}

}  // namespace hpcore::dataset
