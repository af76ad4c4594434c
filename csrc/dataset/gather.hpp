// Purpose: copies sequences of a token stream out of a mapped file, widened to 64 bits.
// Threads: thread-safe.
// Ownership: none; `out` is the caller's.
#pragma once

#include <span>

#include "dataset/file.hpp"

namespace hpcore::dataset {

// Sample i is tokens [i * stride, i * stride + length).
struct SampleShape {
  uint64_t stride = 1;
  uint64_t length = 1;
};

uint64_t sample_count(const FieldView& field, const SampleShape& shape);
// Row r of `out` [indices, length] becomes sample indices[r].
Status gather(const DatasetFile& file, uint64_t field, std::span<const uint64_t> indices,
              const SampleShape& shape, int64_t* out);
// Tokens [first, first + count): for documents.
Status copy_tokens(const DatasetFile& file, uint64_t field, uint64_t first, uint64_t count,
                   int64_t* out);

}  // namespace hpcore::dataset
