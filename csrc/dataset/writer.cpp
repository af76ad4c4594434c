#include "dataset/writer.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

namespace hpcore::dataset {

DatasetWriter::DatasetWriter(std::string path, std::vector<FieldRecord> fields,
                             std::string metadata)
    : path_(std::move(path)), folder_(path_) {
  columns_.resize(fields.size());
  for (size_t i = 0; i < fields.size(); ++i) columns_[i].record = fields[i];
  head_.metadata = std::move(metadata);
}

DatasetWriter::~DatasetWriter() {
  if (open_) give_up();
}

Status DatasetWriter::check_open(uint64_t field) const {
  if (field >= columns_.size()) {
    return {Code::kInvalid, "there is no field number " + std::to_string(field) + " in " + path_ +
                                ", which has " + std::to_string(columns_.size())};
  }
  if (open_) return {};
  return {Code::kInvalid, "the dataset " + path_ + " is finished or was not opened"};
}

Status DatasetWriter::open() {
  if (columns_.empty() || columns_.size() > kMostFields) {
    return {Code::kInvalid, "dataset " + path_ + " would have " + std::to_string(columns_.size()) +
                                " fields; 1 to " + std::to_string(kMostFields) + " are possible"};
  }
  constexpr size_t kMostMetadata = 512 << 10;
  if (head_.metadata.size() > kMostMetadata) {
    return {Code::kInvalid, "metadata have " + std::to_string(head_.metadata.size()) +
                                " bytes, more than " + std::to_string(kMostMetadata)};
  }
  for (size_t i = 0; i < columns_.size(); ++i) {
    HPCORE_RETURN_IF_ERROR(settle_field(&columns_[i].record));
    for (size_t j = 0; j < i; ++j) {
      if (columns_[j].record.name == columns_[i].record.name)
        return {Code::kInvalid, "two fields are called " + field_name(columns_[i].record)};
    }
  }
  HPCORE_RETURN_IF_ERROR(folder_.open());
  open_ = true;
  const std::optional<JournalEntry> entry = folder_.read_journal();
  if (entry.has_value() && entry->identity == identity()) {
    const Status status = open_files(*entry);
    if (status.ok()) {
      resumed_ = entry->note;
      return {};
    }
    if (status.code() == Code::kSystem) return status;
  }
  return restart();
}

Status DatasetWriter::restart() {
  HPCORE_RETURN_IF_ERROR(check_open());
  folder_.clear();
  resumed_.reset();
  JournalEntry fresh;
  fresh.lengths.assign(1 + 3 * columns_.size(), 0);
  fresh.lengths[0] = kDataAlignment;
  return open_files(fresh);
}

uint64_t DatasetWriter::identity() const {
  Digester digester;
  for (const Column& column : columns_) digester.update(&column.record, sizeof column.record);
  digester.update(head_.metadata.data(), head_.metadata.size());
  const Digest128 digest = digester.finish();
  return uint64_t{digest[0]} << 32 | digest[1];
}

JournalEntry DatasetWriter::position() const {
  JournalEntry entry;
  entry.identity = identity();
  entry.lengths.push_back(stream_.offset());
  for (const Column& column : columns_) {
    entry.lengths.push_back(column.data_bytes);
    entry.lengths.push_back(has_starts(column) ? column.starts.bytes() : 0);
    entry.lengths.push_back(column.ended);
  }
  return entry;
}

Status DatasetWriter::open_files(const JournalEntry& entry) {
  if (entry.lengths.size() != 1 + 3 * columns_.size())
    return {Code::kNotFound, "the journal is of another build"};
  HPCORE_RETURN_IF_ERROR(
      stream_.open(folder_.file("file"), folder_.file("checksums"), entry.lengths[0]));
  for (size_t i = 0; i < columns_.size(); ++i) {
    Column& column = columns_[i];
    column.data_bytes = entry.lengths[1 + 3 * i];
    column.ended = entry.lengths[3 + 3 * i];
    const std::string number = std::to_string(i);
    if (i > 0)
      HPCORE_RETURN_IF_ERROR(column.data.open(folder_.file("data." + number), column.data_bytes));
    if (has_starts(column)) {
      HPCORE_RETURN_IF_ERROR(
          column.starts.open(folder_.file("rows." + number), entry.lengths[2 + 3 * i]));
    }
  }
  return {};
}

Status DatasetWriter::append(uint64_t field, const void* data, size_t bytes) {
  HPCORE_RETURN_IF_ERROR(check_open(field));
  Column& column = columns_[field];
  column.data_bytes += bytes;
  return field == 0 ? stream_.append(data, bytes) : column.data.append(data, bytes);
}

Status DatasetWriter::end_rows(uint64_t field, std::span<const uint64_t> lengths) {
  HPCORE_RETURN_IF_ERROR(check_open(field));
  Column& column = columns_[field];
  if (!has_starts(column)) {
    return {Code::kInvalid, "the rows of field " + field_name(column.record) +
                                " have one size: they are not to be ended"};
  }
  const uint64_t unit = column.record.kind == FieldKind::kTokens ? 1 : column.record.row_bytes;
  for (const uint64_t length : lengths) {
    HPCORE_RETURN_IF_ERROR(column.starts.append(&column.ended, sizeof column.ended));
    column.ended += length * unit;
  }
  return {};
}

Status DatasetWriter::checkpoint(const std::string& note) {
  HPCORE_RETURN_IF_ERROR(check_open());
  HPCORE_RETURN_IF_ERROR(stream_.sync());
  for (size_t i = 0; i < columns_.size(); ++i) {
    if (i > 0) HPCORE_RETURN_IF_ERROR(columns_[i].data.sync());
    if (has_starts(columns_[i])) HPCORE_RETURN_IF_ERROR(columns_[i].starts.sync());
  }
  JournalEntry entry = position();
  entry.note = note;
  return folder_.write_journal(entry);
}

void DatasetWriter::keep() {
  open_ = false;
  folder_.unlock();
}

void DatasetWriter::give_up() {
  open_ = false;
  folder_.remove();
}

}  // namespace hpcore::dataset
