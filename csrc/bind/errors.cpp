#include "bind/errors.hpp"

#include "base/exception_name.hpp"

namespace hpcore::bind {
void check(const Status& status) {
  if (status.ok()) return;
  const pybind11::object type =
      pybind11::module_::import("hpcore.errors").attr(exception_name(status.code()));
  PyErr_SetString(type.ptr(), status.message().c_str());
  throw pybind11::error_already_set();
}

}  // namespace hpcore::bind
