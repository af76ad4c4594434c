// The Python module _core: one register_<room>() per room, nothing else.
#include <pybind11/pybind11.h>

#include "bind/register.hpp"

PYBIND11_MODULE(_core, module) {
  module.doc() = "hpcore's native rooms below torch/";
  hpcore::bind::register_base(module);
  hpcore::bind::register_store(module);
  hpcore::bind::register_roster(module);
  hpcore::bind::register_collective(module);
  hpcore::bind::register_cores(module);
  hpcore::bind::register_exact(module);
  hpcore::bind::register_digest(module);
  hpcore::bind::register_plan(module);
  hpcore::bind::register_device(module);
  hpcore::bind::register_transport(module);
  hpcore::bind::register_state(module);
  hpcore::bind::register_dataset(module);
  hpcore::bind::register_order(module);
  hpcore::bind::register_reader(module);
  hpcore::bind::register_cache(module);
}
