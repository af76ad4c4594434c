// How a .hpd file is closed: the other fields' data, tables, checksums, superblock, the new name.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "dataset/writer.hpp"

namespace hpcore::dataset {
namespace {

constexpr size_t kPieceBytes = kBlockBytes;

// Hands the spool's bytes to `take` in pieces.
template <typename Take>
Status for_pieces(Spool& spool, Take take) {
  HPCORE_RETURN_IF_ERROR(spool.flush());
  std::vector<unsigned char> piece(kPieceBytes);
  const uint64_t bytes = spool.bytes();
  for (uint64_t offset = 0; offset < bytes; offset += piece.size()) {
    const size_t taken = std::min<uint64_t>(piece.size(), bytes - offset);
    HPCORE_RETURN_IF_ERROR(spool.read(piece.data(), taken, offset));
    HPCORE_RETURN_IF_ERROR(take(piece.data(), taken));
  }
  return {};
}

// Hands each start, and `end` as one more, to `take(index, start)`.
template <typename Take>
Status for_starts(Spool& spool, uint64_t end, Take take) {
  uint64_t index = 0;
  HPCORE_RETURN_IF_ERROR(for_pieces(spool, [&](const unsigned char* bytes, size_t count) -> Status {
    for (size_t at = 0; at < count; at += sizeof(uint64_t)) {
      uint64_t start;
      std::memcpy(&start, bytes + at, sizeof start);
      HPCORE_RETURN_IF_ERROR(take(index++, start));
    }
    return {};
  }));
  return take(index, end);
}

// The most rows (a power of two, up to 1024) so that each begins less than 4 GiB behind the first
// of its group.
Result<uint32_t> choose_group_rows(Spool& starts, uint64_t end) {
  std::array<uint64_t, kGroupRows> recent{};
  uint32_t group = kGroupRows;
  HPCORE_RETURN_IF_ERROR(for_starts(starts, end, [&](uint64_t index, uint64_t start) -> Status {
    recent[index % kGroupRows] = start;
    while (start - recent[index / group * group % kGroupRows] > UINT32_MAX) group /= 2;
    return {};
  }));
  return group;
}

}  // namespace

Status DatasetWriter::check_rows() const {
  uint64_t total_bytes = 0;
  std::optional<uint64_t> records;
  std::string first;
  for (const Column& column : columns_) {
    const FieldRecord& record = column.record;
    const std::string name = field_name(record);
    total_bytes += column.data_bytes;
    const bool tokens = record.kind == FieldKind::kTokens;
    const uint64_t unit = tokens ? record.row_bytes : 1;
    if (column.data_bytes % record.row_bytes != 0 ||
        (has_starts(column) && column.ended * unit != column.data_bytes)) {
      return {Code::kInvalid, "field " + name + " of " + path_ + " has " +
                                  std::to_string(column.data_bytes) + " bytes; its rows end at " +
                                  std::to_string(column.ended * unit) + ", and one takes " +
                                  std::to_string(record.row_bytes)};
    }
    const uint64_t rows =
        has_starts(column) ? column.starts.bytes() / 8 : column.data_bytes / record.row_bytes;
    if (records.has_value() && *records != rows) {
      return {Code::kInvalid, "the fields of " + path_ +
                                  " do not have the same number of records: " + first + " has " +
                                  std::to_string(*records) + ", " + name + " has " +
                                  std::to_string(rows)};
    }
    if (!records.has_value()) first = name;
    records = rows;
  }
  if (total_bytes == 0)
    return {Code::kInvalid, "nothing to write to " + path_ + ": the input holds no data"};
  return {};
}

Status DatasetWriter::settle_data(size_t index) {
  Column& column = columns_[index];
  FieldRecord& record = column.record;
  if (index > 0) HPCORE_RETURN_IF_ERROR(stream_.pad_to(kDataAlignment));
  record.data_offset = index == 0 ? kDataAlignment : stream_.offset();
  record.data_bytes = column.data_bytes;
  record.rows = record.kind == FieldKind::kVarying ? column.starts.bytes() / 8
                                                   : column.data_bytes / record.row_bytes;
  if (index == 0) return {};
  return for_pieces(column.data, [&](const unsigned char* bytes, size_t count) {
    return stream_.append(bytes, count);
  });
}

Status DatasetWriter::settle_documents(Column* column) {
  HPCORE_RETURN_IF_ERROR(stream_.pad_to(kTableAlignment));
  column->record.document_table_offset = stream_.offset();
  column->record.documents = column->starts.bytes() / 8;
  return for_starts(column->starts, column->ended,
                    [&](uint64_t, uint64_t start) { return stream_.append(&start, sizeof start); });
}

Status DatasetWriter::settle_rows(Column* column) {
  const Result<uint32_t> group = choose_group_rows(column->starts, column->ended);
  HPCORE_RETURN_IF_ERROR(group.status());
  const uint32_t group_rows = group.value();
  HPCORE_RETURN_IF_ERROR(stream_.pad_to(kTableAlignment));
  column->record.row_table_offset = stream_.offset();
  column->record.group_rows = group_rows;
  HPCORE_RETURN_IF_ERROR(
      for_starts(column->starts, column->ended, [&](uint64_t index, uint64_t start) {
        return index % group_rows == 0 ? stream_.append(&start, sizeof start) : Status();
      }));
  uint64_t base = 0;
  return for_starts(column->starts, column->ended, [&](uint64_t index, uint64_t start) {
    if (index % group_rows == 0) base = start;
    const uint32_t relative = static_cast<uint32_t>(start - base);
    return stream_.append(&relative, sizeof relative);
  });
}

// Block table and page table, behind the blocks. Returns the page table's checksum.
Result<uint32_t> DatasetWriter::settle_blocks(Digester* content) {
  HPCORE_RETURN_IF_ERROR(stream_.pad_to(sizeof(uint64_t)));
  HPCORE_RETURN_IF_ERROR(stream_.close_blocks());
  Superblock& s = head_.superblock;
  s.block_table_offset = stream_.offset();
  s.blocks = stream_.crcs().bytes() / sizeof(uint32_t);
  s.page_table_offset = s.block_table_offset + s.blocks * sizeof(uint32_t);
  uint64_t offset = s.block_table_offset;
  std::vector<uint32_t> pages;
  HPCORE_RETURN_IF_ERROR(
      for_pieces(stream_.crcs(), [&](const unsigned char* bytes, size_t count) -> Status {
        content->update(bytes, count);
        pages.push_back(crc32c(bytes, count));
        HPCORE_RETURN_IF_ERROR(write_at(stream_.fd(), stream_.path(), bytes, count, offset));
        offset += count;
        return {};
      }));
  const size_t pages_bytes = pages.size() * sizeof(uint32_t);
  s.file_bytes = s.page_table_offset + pages_bytes;
  HPCORE_RETURN_IF_ERROR(
      write_at(stream_.fd(), stream_.path(), pages.data(), pages_bytes, s.page_table_offset));
  return crc32c(pages.data(), pages_bytes);
}

Status DatasetWriter::publish() {
  HPCORE_RETURN_IF_ERROR(sync_file(stream_.fd(), stream_.path()));
  if (rename(stream_.path().c_str(), path_.c_str()) != 0)
    return Status::system("renaming " + stream_.path() + " to " + path_, errno);
  open_ = false;
  const Status synced = sync_folder_of(path_);
  folder_.remove();
  return synced;
}

Result<Head> DatasetWriter::finish() {
  HPCORE_RETURN_IF_ERROR(check_open());
  HPCORE_RETURN_IF_ERROR(check_rows());
  for (size_t i = 0; i < columns_.size(); ++i) HPCORE_RETURN_IF_ERROR(settle_data(i));
  for (Column& column : columns_) {
    if (column.record.kind == FieldKind::kTokens) HPCORE_RETURN_IF_ERROR(settle_documents(&column));
    if (column.record.kind == FieldKind::kVarying) HPCORE_RETURN_IF_ERROR(settle_rows(&column));
  }
  // The digest covers the field table, which is complete only now; the block table follows it.
  head_.fields.clear();
  for (const Column& column : columns_) head_.fields.push_back(column.record);
  Digester content = begin_digest(head_);
  const Result<uint32_t> page_table_crc = settle_blocks(&content);
  HPCORE_RETURN_IF_ERROR(page_table_crc.status());
  seal_head(&head_, page_table_crc.value(), content);
  const std::vector<unsigned char> head = head_bytes(head_);
  HPCORE_RETURN_IF_ERROR(write_at(stream_.fd(), stream_.path(), head.data(), head.size(), 0));
  HPCORE_RETURN_IF_ERROR(publish());
  return head_;
}

}  // namespace hpcore::dataset
