#include "bind/register.hpp"

namespace hpcore::bind {

void register_roster(pybind11::module_& module) { (void)module; }

}  // namespace hpcore::bind
