#include "dataset/block_checks.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/digest.hpp"
#include "dataset/bus_guard.hpp"

namespace hpcore::dataset {

constexpr uint64_t kSharedBlocks = 64;  // fewer are checked in 2 ms: not worth a socket

BlockChecks::BlockChecks(const std::string& path, const Head& head, const unsigned char* map,
                         int fd)
    : path_(path),
      head_(head),
      map_(map),
      pages_(align_up(head.superblock.blocks * sizeof(uint32_t), kBlockBytes) / kBlockBytes) {
  const uint64_t words = (pages_ + blocks() + 63) / 64;
  if (fd >= 0 && blocks() >= kSharedBlocks) shared_ = SharedBits::find(fd, head, words);
  if (!shared_.has_value()) own_ = std::vector<std::atomic<uint64_t>>(words);
  words_ = shared_.has_value() ? shared_->words() : own_.data();
}

uint64_t BlockChecks::block_offset(uint64_t block) const {
  return head_.superblock.blocks_begin + block * kBlockBytes;
}

uint64_t BlockChecks::block_bytes(uint64_t block) const {
  return std::min<uint64_t>(kBlockBytes, head_.superblock.block_table_offset - block_offset(block));
}

uint64_t BlockChecks::checked_blocks() const {
  uint64_t count = 0;
  for (uint64_t block = 0; block < blocks(); ++block) count += checked(block) ? 1 : 0;
  return count;
}

// What lies in the block that begins there: small sections share one.
std::string BlockChecks::sections_of(uint64_t offset) const {
  std::string found;
  const auto note = [&](const char* what, const FieldRecord& field, uint64_t begin,
                        uint64_t bytes) {
    if (begin == 0 || offset >= begin + bytes || offset + kBlockBytes <= begin) return;
    found += (found.empty() ? "" : ", ") + std::string(what) + " of field " + field_name(field);
  };
  for (const FieldRecord& field : head_.fields) {
    note("data", field, field.data_offset, field.data_bytes);
    note("row table", field, field.row_table_offset,
         row_table_bytes(field.rows, std::max(1u, field.group_rows)));
    note("document table", field, field.document_table_offset,
         (field.documents + 1) * sizeof(uint64_t));
    if (found.size() > 1000) return found + ", more";
  }
  return found.empty() ? "padding" : found;
}

Status BlockChecks::check_page(uint64_t page) {
  const Superblock& s = head_.superblock;
  const uint64_t offset = s.block_table_offset + page * kBlockBytes;
  const uint64_t bytes = std::min<uint64_t>(kBlockBytes, s.page_table_offset - offset);
  uint32_t expected;
  std::memcpy(&expected, map_ + s.page_table_offset + page * sizeof expected, sizeof expected);
  if (crc32c(map_ + offset, bytes) != expected) {
    return {Code::kCorrupt,
            "dataset " + path_ + ": page " + std::to_string(page) + " of the block table (offset " +
                std::to_string(offset) + ", " + std::to_string(bytes) +
                " bytes) does not match its checksum; copy or build the file again"};
  }
  set(page);
  return {};
}

Status BlockChecks::check_block(uint64_t block) {
  const BusGuard guard(map_, head_.superblock.file_bytes);
  const Status status = check_block(block, map_ + block_offset(block));
  if (!guard.hit()) return status;
  return {Code::kCorrupt, "dataset " + path_ + ": block " + std::to_string(block) + " (offset " +
                              std::to_string(block_offset(block)) +
                              ") cannot be read: the file was cut short while it was open, or its "
                              "disk fails"};
}

Status BlockChecks::check_block(uint64_t block, const void* data) {
  const uint64_t page = block * sizeof(uint32_t) / kBlockBytes;
  if (!is_set(page)) HPCORE_RETURN_IF_ERROR(check_page(page));
  const uint64_t offset = block_offset(block);
  const uint64_t bytes = block_bytes(block);
  uint32_t expected;
  std::memcpy(&expected, map_ + head_.superblock.block_table_offset + block * sizeof expected,
              sizeof expected);
  if (crc32c(data, bytes) != expected) {
    return {Code::kCorrupt, "dataset " + path_ + ": block " + std::to_string(block) + " of " +
                                std::to_string(blocks()) + " (offset " + std::to_string(offset) +
                                ", " + std::to_string(bytes) + " bytes, " + sections_of(offset) +
                                ") does not match its checksum; copy or build the file again"};
  }
  set(pages_ + block);
  return {};
}

Status BlockChecks::touch(uint64_t offset, uint64_t bytes) {
  if (bytes == 0) return {};
  const uint64_t begin = offset - head_.superblock.blocks_begin;
  const uint64_t last = (begin + bytes - 1) / kBlockBytes;
  for (uint64_t block = begin / kBlockBytes; block <= last; ++block) {
    if (!checked(block)) HPCORE_RETURN_IF_ERROR(check_block(block));
  }
  return {};
}

Result<uint64_t> BlockChecks::scrub(uint64_t most) {
  uint64_t done = 0;
  uint64_t block = scrubbed_.load(std::memory_order_relaxed);
  for (; block < blocks() && done < most; ++block) {
    if (checked(block)) continue;
    HPCORE_RETURN_IF_ERROR(check_block(block));
    ++done;
  }
  scrubbed_.store(block, std::memory_order_relaxed);
  return done;
}

Status BlockChecks::check_all() {
  for (uint64_t page = 0; page < pages_; ++page) HPCORE_RETURN_IF_ERROR(check_page(page));
  for (uint64_t block = 0; block < blocks(); ++block) HPCORE_RETURN_IF_ERROR(check_block(block));
  return {};
}

}  // namespace hpcore::dataset
