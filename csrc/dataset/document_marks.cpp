#include "dataset/document_marks.hpp"

#include <algorithm>
#include <string>

namespace hpcore::dataset {
namespace {

Status mark_sample(const DatasetFile& file, uint64_t field, uint64_t first, uint64_t length,
                   int32_t* numbers, int32_t* places) {
  const Result<uint64_t> found = file.document_of(field, first);
  HPCORE_RETURN_IF_ERROR(found.status());
  uint64_t document = found.value();
  int32_t number = 0;
  for (uint64_t at = first; at < first + length; ++document) {
    const Result<Range> range = file.document(field, document);
    HPCORE_RETURN_IF_ERROR(range.status());
    const uint64_t end = std::min(range.value().end, first + length);
    if (end <= at) continue;  // an empty document
    for (int32_t place = 0; at < end; ++at, ++place) {
      *numbers++ = number;
      *places++ = place;
    }
    ++number;
  }
  return {};
}

}  // namespace

Status mark_documents(const DatasetFile& file, uint64_t field_index,
                      std::span<const uint64_t> samples, uint64_t stride, uint64_t length,
                      int32_t* numbers, int32_t* places) {
  const FieldView& field = file.field(field_index);
  if (field.kind != FieldKind::kTokens || field.documents == 0) {
    return {Code::kInvalid, "field " + field.name + " of dataset " + file.path() +
                                " is no stream of documents: it has no boundaries"};
  }
  HPCORE_RETURN_IF_ERROR(file.check_size());
  return file.guarded([&]() -> Status {
    for (const uint64_t sample : samples) {
      const uint64_t first = sample * stride;
      if (first > field.rows || length > field.rows - first) {
        return {Code::kInvalid, "sample " + std::to_string(sample) + " is out of range: dataset " +
                                    file.path() + " has " + std::to_string(field.rows) + " tokens"};
      }
      HPCORE_RETURN_IF_ERROR(mark_sample(file, field_index, first, length, numbers, places));
      numbers += length;
      places += length;
    }
    return {};
  });
}

}  // namespace hpcore::dataset
