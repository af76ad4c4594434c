#include "bind/register.hpp"

namespace hpcore::bind {

void register_store(pybind11::module_& module) { (void)module; }

}  // namespace hpcore::bind
