// Purpose: what the bindings of the dataset room share: numbers from Python, checked.
// Threads: call with the GIL held. Ownership: none.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "bind/errors.hpp"
#include "dataset/file.hpp"

namespace hpcore::bind {

// Python hands over signed numbers; a negative one gets our error, not a TypeError of the bindings.
inline uint64_t unsigned_of(int64_t value, const char* what) {
  if (value < 0) {
    check(Status(Code::kInvalid, std::string(what) + " is negative: " + std::to_string(value)));
  }
  return static_cast<uint64_t>(value);
}

inline uint64_t field_index(const dataset::DatasetFile& file, int64_t field) {
  const uint64_t index = unsigned_of(field, "the field's number");
  if (index < file.fields()) return index;
  check(Status(Code::kInvalid, "dataset " + file.path() + " has " + std::to_string(file.fields()) +
                                   " fields, no field number " + std::to_string(index)));
  return 0;
}

// Name -> value, for hpcore.dataset.info.
pybind11::dict describe(const dataset::Head& head);

}  // namespace hpcore::bind
