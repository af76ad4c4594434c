#include "bind/register.hpp"

namespace hpcore::bind {

void register_collective(pybind11::module_& module) { (void)module; }

}  // namespace hpcore::bind
