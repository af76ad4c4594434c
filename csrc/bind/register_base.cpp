#include "base/futex.hpp"
#include "bind/register.hpp"

namespace hpcore::bind {

void register_base(pybind11::module_& module) {
  module.def("monotonic_ns", &monotonic_ns,
             "CLOCK_MONOTONIC in nanoseconds: comparable between processes of one node.");
}

}  // namespace hpcore::bind
