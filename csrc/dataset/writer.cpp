#include "dataset/writer.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

namespace hpcore::dataset {

DatasetWriter::DatasetWriter(std::string path, WriterOptions options)
    : path_(std::move(path)),
      temporary_(path_ + ".part." + std::to_string(getpid())),
      options_(options) {
  block_.reserve(kBlockBytes);
}

DatasetWriter::~DatasetWriter() {
  if (fd_ < 0) return;
  ::close(fd_);
  unlink(temporary_.c_str());
}

Status DatasetWriter::open() {
  const WriterOptions& o = options_;
  const uint64_t limit = o.token_bytes == 1 ? 256 : 65536;
  if (o.token_bytes != 1 && o.token_bytes != 2) {
    return {Code::kInvalid, "tokens are of 1 or 2 bytes, not " + std::to_string(o.token_bytes)};
  }
  if (o.vocabulary < 256 || o.vocabulary > limit || o.separator >= o.vocabulary) {
    return {Code::kInvalid,
            "vocabulary " + std::to_string(o.vocabulary) + " with separator " +
                std::to_string(o.separator) + ": bytes need 256 tokens, tokens of " +
                std::to_string(o.token_bytes) + " bytes can have " + std::to_string(limit) +
                "; choose uint16 for a separator of its own"};
  }
  fd_ = ::open(temporary_.c_str(), O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0644);
  return fd_ < 0 ? Status::system("creating " + temporary_, errno) : Status();
}

Status DatasetWriter::write_all(const void* data, size_t bytes, uint64_t offset) {
  const auto* at = static_cast<const unsigned char*>(data);
  while (bytes > 0) {
    const ssize_t written = pwrite(fd_, at, bytes, static_cast<off_t>(offset));
    if (written < 0) {
      const int error_number = errno;
      if (error_number == EINTR) continue;
      return Status::system("writing " + std::to_string(bytes) + " bytes to " + temporary_,
                            error_number);
    }
    at += written;
    offset += static_cast<uint64_t>(written);
    bytes -= static_cast<size_t>(written);
  }
  return {};
}

Status DatasetWriter::flush_block() {
  if (block_.empty()) return {};
  block_crcs_.push_back(crc32c(block_.data(), block_.size()));
  HPCORE_RETURN_IF_ERROR(write_all(block_.data(), block_.size(), kDataAlignment + data_bytes_));
  data_bytes_ += block_.size();
  block_.clear();
  return {};
}

Status DatasetWriter::put_token_run(const unsigned char* bytes, size_t count) {
  const size_t token_bytes = options_.token_bytes;
  tokens_ += count;
  while (count > 0) {
    const size_t room = (kBlockBytes - block_.size()) / token_bytes;
    const size_t taken = std::min(room, count);
    const size_t begin = block_.size();
    block_.resize(begin + taken * token_bytes);
    if (token_bytes == 1) {
      std::memcpy(block_.data() + begin, bytes, taken);
    } else {
      for (size_t i = 0; i < taken; ++i) block_[begin + 2 * i] = bytes[i];  // the high byte is 0
    }
    bytes += taken;
    count -= taken;
    if (block_.size() == kBlockBytes) HPCORE_RETURN_IF_ERROR(flush_block());
  }
  return {};
}

Status DatasetWriter::append_bytes(const void* data, size_t bytes) {
  if (fd_ < 0) return {Code::kInvalid, "the dataset " + path_ + " is finished or was not opened"};
  documents_.push_back(tokens_);
  HPCORE_RETURN_IF_ERROR(put_token_run(static_cast<const unsigned char*>(data), bytes));
  if (options_.separator < 0) return {};
  const unsigned char low = static_cast<unsigned char>(options_.separator & 0xFF);
  const size_t position = block_.size();
  const bool fills = position + options_.token_bytes == kBlockBytes;
  if (options_.token_bytes == 1 || !fills) {
    HPCORE_RETURN_IF_ERROR(put_token_run(&low, 1));
    if (options_.token_bytes == 2)
      block_.back() = static_cast<unsigned char>(options_.separator >> 8);
    return {};
  }
  ++tokens_;
  block_.push_back(low);
  block_.push_back(static_cast<unsigned char>(options_.separator >> 8));
  return flush_block();
}

Status DatasetWriter::settle_file(Superblock* out) {
  HPCORE_RETURN_IF_ERROR(flush_block());
  documents_.push_back(tokens_);
  Superblock& block = *out;
  block.magic = kMagic;
  block.version = kVersion;
  block.superblock_bytes = sizeof(Superblock);
  block.token_bytes = options_.token_bytes;
  block.vocabulary = options_.vocabulary;
  block.tokens = tokens_;
  block.documents = documents_.size() - 1;
  block.data_offset = kDataAlignment;
  block.data_bytes = data_bytes_;
  block.block_bytes = kBlockBytes;
  block.separator = static_cast<uint32_t>(options_.separator + 1);
  block.blocks = block_crcs_.size();
  const size_t block_table_bytes = block_crcs_.size() * sizeof(uint32_t);
  const size_t document_table_bytes = documents_.size() * sizeof(uint64_t);
  block.block_table_offset = block.data_offset + (data_bytes_ + 7) / 8 * 8;
  block.document_table_offset = block.block_table_offset + (block_table_bytes + 7) / 8 * 8;
  block.file_bytes = block.document_table_offset + document_table_bytes;
  block.block_table_crc = crc32c(block_crcs_.data(), block_table_bytes);
  block.document_table_crc = crc32c(documents_.data(), document_table_bytes);
  Digester content;
  content.update(&block, sizeof block);
  content.update(block_crcs_.data(), block_table_bytes);
  content.update(documents_.data(), document_table_bytes);
  const Digest128 digest = content.finish();
  std::memcpy(block.uuid.data(), digest.data(), block.uuid.size());
  block.uuid[6] = static_cast<unsigned char>((block.uuid[6] & 0x0F) | 0x80);
  block.uuid[8] = static_cast<unsigned char>((block.uuid[8] & 0x3F) | 0x80);
  block.crc = crc32c(&block, offsetof(Superblock, crc));
  HPCORE_RETURN_IF_ERROR(
      write_all(block_crcs_.data(), block_table_bytes, block.block_table_offset));
  HPCORE_RETURN_IF_ERROR(
      write_all(documents_.data(), document_table_bytes, block.document_table_offset));
  return write_all(&block, sizeof block, 0);
}

Status DatasetWriter::publish_file() {
  if (fsync(fd_) != 0) return Status::system("syncing " + temporary_, errno);
  if (rename(temporary_.c_str(), path_.c_str()) != 0) {
    return Status::system("renaming " + temporary_ + " to " + path_, errno);
  }
  ::close(fd_);
  fd_ = -1;
  const size_t slash = path_.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path_.substr(0, slash + 1);
  const int folder_fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder_fd < 0) return Status::system("opening folder " + folder, errno);
  const int rc = fsync(folder_fd);
  const int error_number = errno;
  ::close(folder_fd);
  return rc == 0 ? Status() : Status::system("syncing folder " + folder, error_number);
}

Result<Superblock> DatasetWriter::finish() {
  if (fd_ < 0)
    return Status(Code::kInvalid, "the dataset " + path_ + " is finished or was not opened");
  if (tokens_ == 0)
    return Status(Code::kInvalid, "nothing to write to " + path_ + ": no document has a byte");
  Superblock block;
  HPCORE_RETURN_IF_ERROR(settle_file(&block));
  HPCORE_RETURN_IF_ERROR(publish_file());
  return block;
}

}  // namespace hpcore::dataset
