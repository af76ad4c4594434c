// Purpose: what Python passes to the collectives: buffers as (address, elements), so that nothing
// is copied; names of dtypes and reductions. Blocking calls release the GIL and take it for a
// moment every 50 ms to look for signals.
#pragma once

#include <pybind11/pybind11.h>

#include "bind/errors.hpp"
#include "bind/waiting.hpp"
#include "collective/communicator.hpp"

namespace hpcore::bind {

namespace py = pybind11;
using collective::Buffer;
using collective::DType;
using collective::Limits;
using collective::Reduction;
using Address = std::pair<uintptr_t, size_t>;  // (address, elements)
using Addresses = std::vector<Address>;

inline Buffer buffer_of(const Address& address) {
  return {reinterpret_cast<void*>(address.first), address.second};
}

inline std::vector<Buffer> buffers_of(const Addresses& addresses) {
  std::vector<Buffer> buffers;
  buffers.reserve(addresses.size());
  for (const Address& address : addresses) buffers.push_back(buffer_of(address));
  return buffers;
}

inline DType dtype_of(const std::string& name) {
  const auto dtype = collective::dtype_named(name);
  if (!dtype) {
    check(Status(Code::kInvalid, "\"" + name +
                                     "\" is no dtype of the collectives (torch's names "
                                     "without \"torch.\", such as float32)"));
  }
  return *dtype;
}

inline Reduction reduction_of(const std::string& name, double factor) {
  const auto op = collective::reduce_op_named(name);
  if (!op) {
    check(Status(Code::kInvalid, "\"" + name +
                                     "\" is no reduction: sum, avg, product, min, max, "
                                     "band, bor, bxor, premul_sum, exact_sum"));
  }
  return {*op, factor};
}

// Runs operation(limits) without the GIL; Ctrl-C reaches the main thread meanwhile.
template <typename Operation>
auto blocking(double timeout_s, Operation operation) {
  const std::function<Status()> poll = [] {
    const py::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() == 0) return Status();
    return Status(Code::kAborted, "interrupted by a signal");
  };
  const Limits limits{deadline_in(timeout_s), &poll};
  auto result = [&] {
    const py::gil_scoped_release release;
    return operation(limits);
  }();
  if (PyErr_Occurred() != nullptr) throw py::error_already_set();
  return result;
}

}  // namespace hpcore::bind
