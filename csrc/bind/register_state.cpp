#include "bind/register.hpp"

namespace hpcore::bind {

void register_state(pybind11::module_& module) { (void)module; }

}  // namespace hpcore::bind
