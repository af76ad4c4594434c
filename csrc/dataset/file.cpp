#include "dataset/file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/digest.hpp"

namespace hpcore::dataset {
namespace {

template <typename T>
T load_number(const unsigned char* at) {
  T number;
  std::memcpy(&number, at, sizeof number);
  return number;
}

FieldView view_of(const FieldRecord& f, const unsigned char* map) {
  return {field_name(f),
          f.dtype,
          f.kind,
          {f.shape.begin(), f.shape.begin() + f.dimensions},
          dtype_bytes(f.dtype),
          f.row_bytes,
          f.rows,
          f.documents,
          f.vocabulary,
          static_cast<int64_t>(f.separator) - 1,
          map + f.data_offset,
          f.data_offset,
          f.data_bytes};
}

}  // namespace

Status DatasetFile::corrupt(const std::string& what) const {
  return {Code::kCorrupt, "dataset " + path_ + ": " + what};
}

Status DatasetFile::out_of_range(uint64_t field, const char* what, uint64_t index,
                                 uint64_t limit) const {
  return {Code::kInvalid, std::string(what) + " " + std::to_string(index) +
                              " is out of range: field " + views_[field].name + " of dataset " +
                              path_ + " has " + std::to_string(limit)};
}

Result<std::shared_ptr<DatasetFile>> DatasetFile::open(const std::string& path, bool verify) {
  std::shared_ptr<DatasetFile> file(
      new DatasetFile(path, verify));  // shared: readers hold it while they gather
  HPCORE_RETURN_IF_ERROR(file->load());
  return file;
}

DatasetFile::~DatasetFile() {
  if (map_ != nullptr) munmap(const_cast<unsigned char*>(map_), map_bytes_);
}

Status DatasetFile::load() {
  fd_ = Fd(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd_.valid()) {
    const int error_number = errno;
    if (error_number == ENOENT) return {Code::kNotFound, "there is no dataset " + path_};
    return Status::system("opening dataset " + path_, error_number);
  }
  Result<Head> head = read_head(fd_.get(), path_);
  HPCORE_RETURN_IF_ERROR(head.status());
  head_ = std::move(head.value());
  map_bytes_ = head_.superblock.file_bytes;
  void* map = mmap(nullptr, map_bytes_, PROT_READ, MAP_SHARED, fd_.get(), 0);
  if (map == MAP_FAILED) return Status::system("mapping dataset " + path_, errno);
  map_ = static_cast<const unsigned char*>(map);
  for (const FieldRecord& field : head_.fields) views_.push_back(view_of(field, map_));
  checks_ = std::make_unique<BlockChecks>(path_, head_, map_, verify_ ? fd_.get() : -1);
  return guarded([&] { return check_page_table(); });
}

Status DatasetFile::check_page_table() const {
  const Superblock& s = head_.superblock;
  const uint64_t bytes = s.file_bytes - s.page_table_offset;
  if (crc32c(map_ + s.page_table_offset, bytes) == s.page_table_crc) return {};
  return corrupt("the page table (offset " + std::to_string(s.page_table_offset) + ", " +
                 std::to_string(bytes) +
                 " bytes) does not match its checksum; copy or build the file again");
}

Status DatasetFile::check_size() const {
  struct stat info{};
  if (fstat(fd_.get(), &info) != 0) return Status::system("looking at dataset " + path_, errno);
  if (static_cast<uint64_t>(info.st_size) >= map_bytes_) return {};
  return corrupt("was cut short while it was open: it has " + std::to_string(info.st_size) +
                 " bytes, had " + std::to_string(map_bytes_));
}

Status DatasetFile::unreadable(uint64_t offset) const {
  broken_.store(true, std::memory_order_relaxed);
  HPCORE_RETURN_IF_ERROR(check_size());
  return corrupt("cannot be read at offset " + std::to_string(offset) +
                 ": it was cut short while it was open, or its disk fails; open it again");
}

Result<uint64_t> DatasetFile::find_field(const std::string& name) const {
  std::string names;
  for (uint64_t i = 0; i < views_.size(); ++i) {
    if (views_[i].name == name) return i;
    names += (i == 0 ? "" : ", ") + views_[i].name;
  }
  return Status(Code::kNotFound,
                "dataset " + path_ + " has no field " + name + "; it has " + names);
}

Result<Range> DatasetFile::row_range(uint64_t field, uint64_t row) const {
  const FieldRecord& f = head_.fields[field];
  if (row >= f.rows) return out_of_range(field, "row", row, f.rows);
  const uint64_t relatives = f.row_table_offset + row_groups(f.rows, f.group_rows) * 8;
  const auto start_of = [&](uint64_t r, uint64_t* start) -> Status {
    const uint64_t base = f.row_table_offset + r / f.group_rows * 8;
    HPCORE_RETURN_IF_ERROR(touch_file(base, 8));
    HPCORE_RETURN_IF_ERROR(touch_file(relatives + r * 4, 4));
    *start = load_number<uint64_t>(map_ + base) + load_number<uint32_t>(map_ + relatives + r * 4);
    return {};
  };
  Range range{};
  HPCORE_RETURN_IF_ERROR(start_of(row, &range.begin));
  HPCORE_RETURN_IF_ERROR(start_of(row + 1, &range.end));
  if (range.begin > range.end || range.end > f.data_bytes) {
    return corrupt("row " + std::to_string(row) + " of field " + field_name(f) + " is bytes " +
                   std::to_string(range.begin) + " to " + std::to_string(range.end) + " of " +
                   std::to_string(f.data_bytes));
  }
  return range;
}

std::span<const uint64_t> DatasetFile::documents(uint64_t field) const {
  const FieldRecord& f = head_.fields[field];
  if (f.kind != FieldKind::kTokens) return {};
  // The table is aligned in the file.
  return {reinterpret_cast<const uint64_t*>(map_ + f.document_table_offset), f.documents + 1};
}

Result<Range> DatasetFile::document(uint64_t field, uint64_t index) const {
  const FieldRecord& f = head_.fields[field];
  if (index >= f.documents) return out_of_range(field, "document", index, f.documents);
  HPCORE_RETURN_IF_ERROR(touch_file(f.document_table_offset + index * 8, 16));
  const std::span<const uint64_t> starts = documents(field);
  const Range range{starts[index], starts[index + 1]};
  if (range.begin <= range.end && range.end <= f.rows) return range;
  return corrupt("document " + std::to_string(index) + " of field " + field_name(f) +
                 " is tokens " + std::to_string(range.begin) + " to " + std::to_string(range.end) +
                 " of " + std::to_string(f.rows));
}

Result<uint64_t> DatasetFile::document_of(uint64_t field, uint64_t token) const {
  const FieldRecord& f = head_.fields[field];
  if (f.kind != FieldKind::kTokens || token >= f.rows) {
    return out_of_range(field, "token", token, f.kind == FieldKind::kTokens ? f.rows : 0);
  }
  const std::span<const uint64_t> starts = documents(field);
  uint64_t low = 0, high = f.documents;  // the last that begins at or before the token
  while (high - low > 1) {
    const uint64_t middle = low + (high - low) / 2;
    HPCORE_RETURN_IF_ERROR(touch_file(f.document_table_offset + middle * 8, 8));
    (starts[middle] <= token ? low : high) = middle;
  }
  return low;
}

Status DatasetFile::check_padding() const {
  const Superblock& s = head_.superblock;
  const unsigned char* begin = map_ + s.metadata_offset + s.metadata_bytes;
  const unsigned char* end = map_ + s.blocks_begin;
  const unsigned char* other =
      std::find_if(begin, end, [](unsigned char byte) { return byte != 0; });
  if (other == end) return {};
  return corrupt("byte " + std::to_string(other - map_) +
                 ", between the metadata and the data, is not zero; copy or build the file again");
}

Status DatasetFile::verify_all() const {
  HPCORE_RETURN_IF_ERROR(check_size());
  return guarded([&]() -> Status {
    HPCORE_RETURN_IF_ERROR(check_page_table());
    HPCORE_RETURN_IF_ERROR(check_padding());
    return checks_->check_all();
  });
}

}  // namespace hpcore::dataset
