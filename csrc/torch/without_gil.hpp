// Purpose: runs something that may block without Python's lock, whether or not the caller has it:
// what it waits for may need the lock. Threads: any.
#pragma once

#include <pybind11/pybind11.h>

namespace hpcore::torch_binding {

template <typename Function>
void without_gil(Function function) {
  if (Py_IsInitialized() != 0 && PyGILState_Check() != 0) {
    const pybind11::gil_scoped_release release;
    function();
  } else {
    function();
  }
}

}  // namespace hpcore::torch_binding
