// Purpose: Status -> Python exception of hpcore.errors. Call check() with the GIL held.
#pragma once

#include <pybind11/pybind11.h>

#include "base/status.hpp"

namespace hpcore::bind {

// Returns if ok, else raises the exception that belongs to the code.
void check(const Status& status);

template <typename T>
T check(Result<T> result) {
  check(result.status());
  return std::move(result.value());
}

}  // namespace hpcore::bind
