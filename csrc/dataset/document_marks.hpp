// Purpose: where documents begin and end within samples of a token stream, so that attention and
// loss can stop there.
// Threads: thread-safe.
// Ownership: none; the caller's memory.
#pragma once

#include <cstdint>
#include <span>

#include "dataset/file.hpp"

namespace hpcore::dataset {

// For samples of `length` tokens, `stride` apart: number of the document within its sample (from
// 0), and place of the token within its document as far as the sample shows it (from 0). Both
// [samples, length].
Status mark_documents(const DatasetFile& file, uint64_t field, std::span<const uint64_t> samples,
                      uint64_t stride, uint64_t length, int32_t* numbers, int32_t* places);

}  // namespace hpcore::dataset
