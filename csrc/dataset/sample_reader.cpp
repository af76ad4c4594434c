#include "dataset/sample_reader.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "dataset/permutation.hpp"
#include "dataset/widen.hpp"

namespace hpcore::dataset {
namespace {

constexpr uint64_t kPartBytes = 1 << 20;  // of output: below it a second thread costs more
constexpr size_t kRowsAhead = 4;          // bench/test_bench_dataset.py: 2 to 8 are alike
constexpr uint64_t kMapLimitBytes = uint64_t{64} << 30;

bool is_unsigned(Dtype dtype) { return dtype <= Dtype::kUint64 || dtype == Dtype::kBool; }

Status shape_error(const DatasetFile& file, const FieldView& field, const std::string& what) {
  return {Code::kInvalid, "field " + field.name + " of dataset " + file.path() + " " + what};
}

}  // namespace

ReadMode choose_mode(uint64_t file_bytes, uint64_t memory_bytes) {
  return file_bytes > std::min(memory_bytes / 2, kMapLimitBytes) ? ReadMode::kRead : ReadMode::kMap;
}

struct SampleReader::Copy {
  std::span<const uint64_t> samples;
  const Target& target;
  Widen widen;
  uint64_t row_bytes;  // of the target

  [[nodiscard]] unsigned char* row(size_t i) const {
    const uint64_t at = target.rows.empty() ? i : target.rows[i];
    return static_cast<unsigned char*>(target.data) + at * row_bytes;
  }
};

Result<std::shared_ptr<SampleReader>> SampleReader::make(std::shared_ptr<DatasetFile> file,
                                                         const ReaderOptions& options) {
  if (options.field >= file->fields()) {
    return Status(Code::kInvalid,
                  "dataset " + file->path() + " has no field " + std::to_string(options.field));
  }
  const FieldView& field = file->field(options.field);
  if (options.stride == 0 || options.length == 0) {
    return shape_error(*file, field, "needs samples of at least one row, at least one apart");
  }
  if (field.kind == FieldKind::kVarying) {
    return shape_error(*file, field, "has rows of varying size: read them one by one");
  }
  // shared: readers of several threads hold it while they gather
  std::shared_ptr<SampleReader> reader(new SampleReader());
  reader->field_ = &field;
  reader->field_index_ = options.field;
  reader->samples_ =
      field.rows < options.length ? 0 : (field.rows - options.length) / options.stride + 1;
  reader->step_bytes_ = options.stride * field.row_bytes;
  reader->sample_bytes_ = options.length * field.row_bytes;
  reader->numbers_ = reader->sample_bytes_ / field.item_bytes;
  reader->mode_ = options.mode;
  reader->asked_ = std::vector<std::atomic<uint64_t>>((file->checks().blocks() + 63) / 64);
  reader->pool_ = std::make_unique<Pool>(options.threads);
  reader->file_ = std::move(file);
  return reader;
}

Status SampleReader::gather(std::span<const uint64_t> samples, const Target& target) const {
  for (const uint64_t sample : samples) {
    if (sample >= samples_) return out_of_range(sample);
  }
  const auto own_bytes = static_cast<unsigned>(field_->item_bytes);
  const Widen widen = widen_code(own_bytes, target.item_bytes);
  if (widen == nullptr || (own_bytes != target.item_bytes && !is_unsigned(field_->dtype))) {
    return shape_error(*file_, *field_,
                       "holds " + std::string(dtype_name(field_->dtype)) +
                           ", which is not widened to numbers of " +
                           std::to_string(target.item_bytes) + " bytes: take it as it is");
  }
  HPCORE_RETURN_IF_ERROR(file_->check_size());
  const Copy copy{samples, target, widen, numbers_ * target.item_bytes};
  const size_t count = samples.size();
  const size_t parts = std::clamp<size_t>(count * copy.row_bytes / kPartBytes, 1, pool_->threads());
  if (parts == 1) return copy_part(copy, 0, count);
  std::vector<Status> done(parts);
  pool_->share(parts, [&](size_t part) {
    done[part] = copy_part(copy, count * part / parts, count * (part + 1) / parts);
  });
  for (Status& status : done) HPCORE_RETURN_IF_ERROR(std::move(status));
  return {};
}

Status SampleReader::copy_part(const Copy& copy, size_t begin, size_t end) const {
  return mode_ == ReadMode::kMap ? copy_mapped(copy, begin, end) : copy_read(copy, begin, end);
}

Status SampleReader::copy_mapped(const Copy& copy, size_t begin, size_t end) const {
  const unsigned char* data = field_->data;
  return file_->guarded([&]() -> Status {
    for (size_t i = begin; i < end; ++i) {
      const uint64_t at = copy.samples[i] * step_bytes_;
      if (i + kRowsAhead < end) {
        fetch_ahead(data + copy.samples[i + kRowsAhead] * step_bytes_, sample_bytes_);
      }
      HPCORE_RETURN_IF_ERROR(file_->touch(field_index_, at, sample_bytes_));
      copy.widen(data + at, numbers_, copy.row(i));
    }
    return {};
  });
}

Status SampleReader::copy_read(const Copy& copy, size_t begin, size_t end) const {
  const bool as_it_is = copy.row_bytes == sample_bytes_;
  std::vector<unsigned char> row(as_it_is ? 0 : sample_bytes_);
  for (size_t i = begin; i < end; ++i) {
    const uint64_t offset = offset_of(copy.samples[i]);
    if (file_->verifies()) HPCORE_RETURN_IF_ERROR(check_by_reading(offset, sample_bytes_));
    HPCORE_RETURN_IF_ERROR(
        read_exactly(offset, sample_bytes_, as_it_is ? copy.row(i) : row.data()));
    if (!as_it_is) copy.widen(row.data(), numbers_, copy.row(i));
  }
  return {};
}

Status SampleReader::read_exactly(uint64_t offset, uint64_t bytes, void* to) const {
  uint64_t done = 0;
  while (done < bytes) {
    const ssize_t got = pread(file_->fd(), static_cast<unsigned char*>(to) + done, bytes - done,
                              static_cast<off_t>(offset + done));
    if (got > 0) {
      done += static_cast<uint64_t>(got);
    } else if (got == 0) {
      return {Code::kCorrupt, "dataset " + file_->path() +
                                  " was cut short while it was open: it ends at " +
                                  std::to_string(offset + done) + ", bytes up to " +
                                  std::to_string(offset + bytes) + " were wanted"};
    } else if (errno != EINTR) {
      return Status::system(
          "reading dataset " + file_->path() + " at offset " + std::to_string(offset + done),
          errno);
    }
  }
  return {};
}

Status SampleReader::check_by_reading(uint64_t offset, uint64_t bytes) const {
  BlockChecks& checks = file_->checks();
  const uint64_t begin = file_->head().superblock.blocks_begin;
  std::vector<unsigned char> block_data;
  const uint64_t last = (offset + bytes - 1 - begin) / kBlockBytes;
  for (uint64_t block = (offset - begin) / kBlockBytes; block <= last; ++block) {
    if (checks.checked(block)) continue;
    block_data.resize(checks.block_bytes(block));
    HPCORE_RETURN_IF_ERROR(
        read_exactly(checks.block_offset(block), block_data.size(), block_data.data()));
    HPCORE_RETURN_IF_ERROR(
        file_->guarded([&]() -> Status { return checks.check_block(block, block_data.data()); }));
  }
  return {};
}

Status SampleReader::check(uint64_t sample) const {
  if (sample >= samples_) return out_of_range(sample);
  HPCORE_RETURN_IF_ERROR(file_->check_size());
  return file_->guarded(
      [&]() -> Status { return file_->touch(field_index_, sample * step_bytes_, sample_bytes_); });
}

Status SampleReader::out_of_range(uint64_t sample) const {
  return {Code::kInvalid, "sample " + std::to_string(sample) + " is out of range: dataset " +
                              file_->path() + " has " + std::to_string(samples_) + " samples of " +
                              std::to_string(numbers_) + " numbers"};
}

std::vector<uint64_t> SampleReader::order(uint64_t seed, uint64_t first, uint64_t count,
                                          bool shuffle) const {
  std::vector<uint64_t> found;
  found.reserve(count);
  while (found.size() < count) {
    const uint64_t at = first + found.size();
    const uint64_t begin = at % samples_;
    const uint64_t run = std::min(count - found.size(), samples_ - begin);
    if (shuffle) {
      const Permutation order = Permutation::make(samples_, seed, at / samples_).value();
      for (uint64_t i = 0; i < run; ++i) found.push_back(order.at(begin + i));
    } else {
      for (uint64_t i = 0; i < run; ++i) found.push_back(begin + i);
    }
  }
  return found;
}

Status SampleReader::gather_order(uint64_t seed, uint64_t first, uint64_t count, bool shuffle,
                                  const Target& target) const {
  return gather(order(seed, first, count, shuffle), target);
}

uint64_t SampleReader::will_need(std::span<const uint64_t> samples) {
  const BlockChecks& checks = file_->checks();
  const uint64_t begin = file_->head().superblock.blocks_begin;
  std::vector<uint64_t> blocks;
  if (mode_ == ReadMode::kRead) announce(samples);
  for (const uint64_t sample : samples) {
    if (sample >= samples_) continue;
    const uint64_t offset = offset_of(sample) - begin;
    const uint64_t last = (offset + sample_bytes_ - 1) / kBlockBytes;
    for (uint64_t block = offset / kBlockBytes; block <= last; ++block) {
      const uint64_t bit = uint64_t{1} << (block % 64);
      if (file_->verifies() && checks.checked(block)) continue;
      if ((asked_[block / 64].fetch_or(bit, std::memory_order_relaxed) & bit) == 0) {
        blocks.push_back(block);
      }
    }
  }
  if (blocks.empty()) return 0;
  const uint64_t count = blocks.size();
  // The pool is this reader's and ends before it: `this` outlives the task.
  const bool taken = pool_->submit([this, blocks = std::move(blocks)] { warm(blocks); });
  return taken ? count : 0;
}

// A file that is larger than memory may have lost what it had: the kernel is told of every row.
void SampleReader::announce(std::span<const uint64_t> samples) {
  (void)pool_->submit([this, rows = std::vector<uint64_t>(samples.begin(), samples.end())] {
    for (const uint64_t row : rows) {
      if (row >= samples_) continue;
      (void)posix_fadvise(file_->fd(), static_cast<off_t>(offset_of(row)),
                          static_cast<off_t>(sample_bytes_), POSIX_FADV_WILLNEED);
    }
  });
}

// First all reads are started, then each block is waited for: the disk sees them together. What
// fails here fails again, with its error, where the samples are gathered.
void SampleReader::warm(const std::vector<uint64_t>& blocks) const {
  const BlockChecks& checks = file_->checks();
  for (const uint64_t block : blocks) {
    (void)posix_fadvise(file_->fd(), static_cast<off_t>(checks.block_offset(block)),
                        static_cast<off_t>(checks.block_bytes(block)), POSIX_FADV_WILLNEED);
  }
  for (const uint64_t block : blocks) {
    const uint64_t offset = checks.block_offset(block);
    const uint64_t bytes = checks.block_bytes(block);
    if (mode_ == ReadMode::kRead) {
      if (file_->verifies()) (void)check_by_reading(offset, bytes);
      continue;
    }
    auto* at = const_cast<unsigned char*>(field_->data) + (offset - field_->data_offset);
    (void)madvise(at, bytes, MADV_POPULATE_READ);  // Linux 5.14 on
    if (file_->verifies()) {
      (void)file_->guarded([&]() -> Status { return file_->checks().touch(offset, bytes); });
    }
  }
}

Status copy_bytes(const DatasetFile& file, uint64_t field_index, uint64_t begin, uint64_t bytes,
                  void* out) {
  const FieldView& field = file.field(field_index);
  if (begin > field.data_bytes || bytes > field.data_bytes - begin) {
    return shape_error(file, field,
                       "has " + std::to_string(field.data_bytes) + " bytes; wanted are " +
                           std::to_string(begin) + " to " + std::to_string(begin + bytes));
  }
  HPCORE_RETURN_IF_ERROR(file.check_size());
  return file.guarded([&]() -> Status {
    HPCORE_RETURN_IF_ERROR(file.touch(field_index, begin, bytes));
    std::memcpy(out, field.data + begin, bytes);
    return {};
  });
}

}  // namespace hpcore::dataset
