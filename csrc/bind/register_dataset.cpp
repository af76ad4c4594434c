#include "bind/register.hpp"

namespace hpcore::bind {

void register_dataset(pybind11::module_& module) { (void)module; }

}  // namespace hpcore::bind
