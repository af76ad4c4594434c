#include "dataset/file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/digest.hpp"

namespace hpcore::dataset {

Status DatasetFile::corrupt(const std::string& what) const {
  return {Code::kCorrupt, "dataset " + path_ + ": " + what};
}

Result<std::shared_ptr<DatasetFile>> DatasetFile::open(const std::string& path, bool verify) {
  std::shared_ptr<DatasetFile> file(
      new DatasetFile(path, verify));  // shared: readers hold it while they gather
  HPCORE_RETURN_IF_ERROR(file->load());
  return file;
}

DatasetFile::~DatasetFile() {
  if (map_ != nullptr) munmap(const_cast<unsigned char*>(map_), map_bytes_);
  if (fd_ >= 0) ::close(fd_);
}

Status DatasetFile::load() {
  fd_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd_ < 0) {
    const int error_number = errno;
    if (error_number == ENOENT) return {Code::kNotFound, "there is no dataset " + path_};
    return Status::system("opening dataset " + path_, error_number);
  }
  struct stat info{};
  if (fstat(fd_, &info) != 0) return Status::system("looking at dataset " + path_, errno);
  const uint64_t size_bytes = static_cast<uint64_t>(info.st_size);
  if (pread(fd_, &superblock_, sizeof superblock_, 0) != static_cast<ssize_t>(sizeof superblock_)) {
    return corrupt("has " + std::to_string(size_bytes) +
                   " bytes, too few for a superblock of 4096");
  }
  HPCORE_RETURN_IF_ERROR(check_superblock(size_bytes));
  map_bytes_ = superblock_.file_bytes;
  void* map = mmap(nullptr, map_bytes_, PROT_READ, MAP_SHARED, fd_, 0);
  if (map == MAP_FAILED) return Status::system("mapping dataset " + path_, errno);
  map_ = static_cast<const unsigned char*>(map);
  verified_ = std::vector<std::atomic<uint64_t>>((superblock_.blocks + 63) / 64);
  return check_tables();
}

Status DatasetFile::check_superblock(uint64_t size_bytes) const {
  const Superblock& s = superblock_;
  if (s.magic != kMagic) return corrupt("is not a .hpd file (magic number differs)");
  if (s.crc != crc32c(&s, offsetof(Superblock, crc))) {
    return corrupt("the superblock (bytes 0 to 4096) does not match its checksum");
  }
  if (s.version != kVersion) {
    return {Code::kUnsupported, "dataset " + path_ + " is of version " + std::to_string(s.version) +
                                    "; this hpcore reads version 1"};
  }
  // A superblock with a right checksum was written by us; these guard against a future writer's
  // mistake.
  const bool sound =
      (s.token_bytes == 1 || s.token_bytes == 2 || s.token_bytes == 4) &&
      s.block_bytes == kBlockBytes && s.data_bytes == s.tokens * s.token_bytes &&
      s.blocks == (s.data_bytes + kBlockBytes - 1) / kBlockBytes &&
      s.block_table_offset >= s.data_offset + s.data_bytes &&
      s.document_table_offset >= s.block_table_offset + s.blocks * sizeof(uint32_t) &&
      s.file_bytes == s.document_table_offset + (s.documents + 1) * sizeof(uint64_t);
  if (!sound) return corrupt("the superblock's numbers contradict each other");
  if (size_bytes != s.file_bytes) {
    return corrupt("was cut short or grew: it has " + std::to_string(size_bytes) +
                   " bytes, should have " + std::to_string(s.file_bytes) +
                   "; copy or build it again");
  }
  return {};
}

Status DatasetFile::check_tables() const {
  const Superblock& s = superblock_;
  if (crc32c(map_ + s.block_table_offset, s.blocks * sizeof(uint32_t)) != s.block_table_crc) {
    return corrupt("the block table (offset " + std::to_string(s.block_table_offset) +
                   ") does not match its checksum");
  }
  if (crc32c(map_ + s.document_table_offset, (s.documents + 1) * sizeof(uint64_t)) !=
      s.document_table_crc) {
    return corrupt("the document table (offset " + std::to_string(s.document_table_offset) +
                   ") does not match its checksum");
  }
  return {};
}

Status DatasetFile::check_size() const {
  struct stat info{};
  if (fstat(fd_, &info) != 0) return Status::system("looking at dataset " + path_, errno);
  if (static_cast<uint64_t>(info.st_size) >= map_bytes_) return {};
  return corrupt("was cut short while it was open: it has " + std::to_string(info.st_size) +
                 " bytes, had " + std::to_string(map_bytes_));
}

Status DatasetFile::check_block(uint64_t block) const {
  const Superblock& s = superblock_;
  const uint64_t begin = block * kBlockBytes;
  const uint64_t bytes = std::min<uint64_t>(kBlockBytes, s.data_bytes - begin);
  uint32_t expected;
  std::memcpy(&expected, map_ + s.block_table_offset + block * sizeof expected, sizeof expected);
  if (crc32c(map_ + s.data_offset + begin, bytes) == expected) return {};
  return corrupt("block " + std::to_string(block) + " of " + std::to_string(s.blocks) +
                 " (offset " + std::to_string(s.data_offset + begin) + ", " +
                 std::to_string(bytes) +
                 " bytes) does not match its checksum; copy or build the file again");
}

Status DatasetFile::touch(uint64_t first_byte, uint64_t bytes) const {
  if (!verify_ || bytes == 0) return {};
  const uint64_t last = (first_byte + bytes - 1) / kBlockBytes;
  for (uint64_t block = first_byte / kBlockBytes; block <= last; ++block) {
    std::atomic<uint64_t>& word = verified_[block / 64];
    const uint64_t bit = uint64_t{1} << (block % 64);
    if ((word.load(std::memory_order_relaxed) & bit) != 0) continue;
    HPCORE_RETURN_IF_ERROR(check_block(block));
    word.fetch_or(bit, std::memory_order_relaxed);
  }
  return {};
}

void DatasetFile::widen(uint64_t first_token, uint64_t count, int64_t* out) const {
  const unsigned char* from =
      map_ + superblock_.data_offset + first_token * superblock_.token_bytes;
  auto copy = [&]<typename Token>(Token) {
    for (uint64_t i = 0; i < count; ++i) {
      Token token;
      std::memcpy(&token, from + i * sizeof(Token), sizeof token);
      out[i] = static_cast<int64_t>(token);
    }
  };
  switch (superblock_.token_bytes) {
    case 1:
      return copy(uint8_t{});
    case 2:
      return copy(uint16_t{});
    default:
      return copy(uint32_t{});
  }
}

uint64_t DatasetFile::samples(const SampleShape& shape) const {
  if (superblock_.tokens < shape.length) return 0;
  return (superblock_.tokens - shape.length) / shape.stride + 1;
}

Status DatasetFile::gather(std::span<const uint64_t> indices, const SampleShape& shape,
                           int64_t* out) const {
  HPCORE_RETURN_IF_ERROR(check_size());
  const uint64_t available = samples(shape);
  const uint64_t token_bytes = superblock_.token_bytes;
  for (const uint64_t index : indices) {
    if (index >= available) {
      return {Code::kInvalid, "sample " + std::to_string(index) + " is out of range: dataset " +
                                  path_ + " has " + std::to_string(available) + " samples of " +
                                  std::to_string(shape.length) + " tokens"};
    }
    const uint64_t first = index * shape.stride;
    HPCORE_RETURN_IF_ERROR(touch(first * token_bytes, shape.length * token_bytes));
    widen(first, shape.length, out);
    out += shape.length;
  }
  return {};
}

Status DatasetFile::tokens(uint64_t first, uint64_t count, int64_t* out) const {
  if (first > superblock_.tokens || count > superblock_.tokens - first) {
    return {Code::kInvalid, "tokens " + std::to_string(first) + " to " +
                                std::to_string(first + count) + " are out of range: dataset " +
                                path_ + " has " + std::to_string(superblock_.tokens)};
  }
  HPCORE_RETURN_IF_ERROR(check_size());
  HPCORE_RETURN_IF_ERROR(touch(first * superblock_.token_bytes, count * superblock_.token_bytes));
  widen(first, count, out);
  return {};
}

std::span<const uint64_t> DatasetFile::documents() const {
  // The table is 8-byte aligned in the file.
  return {reinterpret_cast<const uint64_t*>(map_ + superblock_.document_table_offset),
          superblock_.documents + 1};
}

Status DatasetFile::verify_all() const {
  HPCORE_RETURN_IF_ERROR(check_size());
  for (uint64_t block = 0; block < superblock_.blocks; ++block)
    HPCORE_RETURN_IF_ERROR(check_block(block));
  return {};
}

}  // namespace hpcore::dataset
