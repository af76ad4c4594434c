#include "torch/error.hpp"

#include <torch/csrc/Exceptions.h>

#include <array>

#include "base/exception_name.hpp"

namespace hpcore::torch_binding {
namespace {

constexpr size_t kCodes = static_cast<size_t>(Code::kSystem) + 1;
// The classes live as long as the interpreter: a reference is kept for good.
std::array<PyObject*, kCodes> python_types{};

// torch's own C++-to-Python bridges ask a PyTorchError for its Python class.
struct NativeError final : torch::PyTorchError {
  NativeError(Code code, const std::string& message) : PyTorchError(message), code(code) {}
  PyObject* python_type() override { return python_types[static_cast<size_t>(code)]; }
  Code code;
};

}  // namespace

void register_errors() {
  const auto errors = pybind11::module_::import("hpcore.errors");
  for (size_t code = 0; code < kCodes; ++code) {
    python_types[code] =
        pybind11::object(errors.attr(exception_name(static_cast<Code>(code)))).release().ptr();
  }
  pybind11::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (NativeError& error) {
      PyErr_SetString(error.python_type(), error.what());
    }
  });
}

std::exception_ptr exception_of(const Status& status) {
  return status.ok() ? nullptr
                     : std::make_exception_ptr(NativeError(status.code(), status.message()));
}

void raise(const Status& status) { throw NativeError(status.code(), status.message()); }

}  // namespace hpcore::torch_binding
