// Purpose: Status -> C++ exception that becomes the right class of hpcore.errors in Python,
// whichever way it travels through torch: pybind11, the dispatcher, the autograd engine, a Future.
// Threads: thread-safe; needs no GIL to make or throw. Ownership: the exception owns its message.
// Lifecycle: register_errors() once at import, before anything can fail.
#pragma once

#include <exception>

#include "base/status.hpp"

namespace hpcore::torch_binding {

void register_errors();  // with the GIL

std::exception_ptr exception_of(const Status& status);
[[noreturn]] void raise(const Status& status);

inline void check(const Status& status) {
  if (!status.ok()) raise(status);
}

template <typename T>
T check(Result<T> result) {
  check(result.status());
  return std::move(result.value());
}

}  // namespace hpcore::torch_binding
