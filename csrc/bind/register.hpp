// Purpose: what each register_<room>.cpp of this folder offers to module.cpp. Order of calls =
// order of dependence.
#pragma once

#include <pybind11/pybind11.h>

namespace hpcore::bind {

void register_base(pybind11::module_& module);
void register_dataset(pybind11::module_& module);
void register_dataset_file(pybind11::module_& module);
void register_dataset_writer(pybind11::module_& module);
void register_order(pybind11::module_& module);
void register_reader(pybind11::module_& module);
void register_cache(pybind11::module_& module);
void register_transport(pybind11::module_& module);
void register_device(pybind11::module_& module);
void register_digest(pybind11::module_& module);
void register_state(pybind11::module_& module);
void register_plan(pybind11::module_& module);
void register_exact(pybind11::module_& module);
void register_collective(pybind11::module_& module);
void register_cores(pybind11::module_& module);
void register_store(pybind11::module_& module);
void register_roster(pybind11::module_& module);
void register_worker(pybind11::module_& module);

}  // namespace hpcore::bind
