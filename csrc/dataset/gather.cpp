#include "dataset/gather.hpp"

#include <cstring>

namespace hpcore::dataset {
namespace {

void widen(const FieldView& field, uint64_t first_token, uint64_t count, int64_t* out) {
  const unsigned char* from = field.data + first_token * field.row_bytes;
  auto copy = [&]<typename Token>(Token) {
    for (uint64_t i = 0; i < count; ++i) {
      Token token;
      std::memcpy(&token, from + i * sizeof(Token), sizeof token);
      out[i] = static_cast<int64_t>(token);
    }
  };
  switch (field.row_bytes) {
    case 1:
      return copy(uint8_t{});
    case 2:
      return copy(uint16_t{});
    default:
      return copy(uint32_t{});
  }
}

Status check_tokens(const DatasetFile& file, const FieldView& field) {
  if (field.kind == FieldKind::kTokens) return {};
  return {Code::kInvalid, "field " + field.name + " of dataset " + file.path() +
                              " holds rows, not a stream of tokens"};
}

}  // namespace

uint64_t sample_count(const FieldView& field, const SampleShape& shape) {
  if (field.kind != FieldKind::kTokens || field.rows < shape.length) return 0;
  return (field.rows - shape.length) / shape.stride + 1;
}

Status gather(const DatasetFile& file, uint64_t field_index, std::span<const uint64_t> indices,
              const SampleShape& shape, int64_t* out) {
  const FieldView& field = file.field(field_index);
  HPCORE_RETURN_IF_ERROR(check_tokens(file, field));
  HPCORE_RETURN_IF_ERROR(file.check_size());
  const uint64_t available = sample_count(field, shape);
  for (const uint64_t index : indices) {
    if (index >= available) {
      return {Code::kInvalid, "sample " + std::to_string(index) + " is out of range: dataset " +
                                  file.path() + " has " + std::to_string(available) +
                                  " samples of " + std::to_string(shape.length) + " tokens"};
    }
    const uint64_t first = index * shape.stride;
    HPCORE_RETURN_IF_ERROR(
        file.touch(field_index, first * field.row_bytes, shape.length * field.row_bytes));
    widen(field, first, shape.length, out);
    out += shape.length;
  }
  return {};
}

Status copy_tokens(const DatasetFile& file, uint64_t field_index, uint64_t first, uint64_t count,
                   int64_t* out) {
  const FieldView& field = file.field(field_index);
  HPCORE_RETURN_IF_ERROR(check_tokens(file, field));
  if (first > field.rows || count > field.rows - first) {
    return {Code::kInvalid, "tokens " + std::to_string(first) + " to " +
                                std::to_string(first + count) + " are out of range: dataset " +
                                file.path() + " has " + std::to_string(field.rows)};
  }
  HPCORE_RETURN_IF_ERROR(file.check_size());
  HPCORE_RETURN_IF_ERROR(file.touch(field_index, first * field.row_bytes, count * field.row_bytes));
  widen(field, first, count, out);
  return {};
}

}  // namespace hpcore::dataset
