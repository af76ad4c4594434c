// Python name of the dataset room's NodeCache.
#include <pybind11/pybind11.h>

#include "bind/errors.hpp"
#include "bind/register.hpp"
#include "dataset/node_cache.hpp"

namespace py = pybind11;

namespace hpcore::bind {

using dataset::NodeCache;

void register_cache(py::module_& module) {
  py::class_<NodeCache, std::shared_ptr<NodeCache>>(
      module, "NodeCache",
      "Records by key in a memory file that all processes of a node use. Thread-safe.")
      .def_static(
          "create", [](uint64_t ring_bytes) { return check(NodeCache::create(ring_bytes)); },
          py::arg("ring_bytes"))
      .def_static(
          "attach", [](int fd) { return check(NodeCache::attach(fd)); }, py::arg("fd"),
          "Takes the descriptor over.")
      .def(
          "put",
          [](NodeCache& self, uint64_t space, uint64_t position, const py::buffer& data) {
            const py::buffer_info info = data.request();
            const auto bytes = static_cast<uint64_t>(info.size * info.itemsize);
            const py::gil_scoped_release release;
            return self.put({space, position}, info.ptr, bytes);
          },
          py::arg("space"), py::arg("position"), py::arg("data"),
          "False if the record is too large to be kept.")
      .def(
          "get",
          [](NodeCache& self, uint64_t space, uint64_t position) -> py::object {
            std::string found;
            bool there = false;
            {
              const py::gil_scoped_release release;
              there = self.get({space, position}, &found);
            }
            if (!there) return py::none();
            return py::bytes(found);
          },
          py::arg("space"), py::arg("position"), "The record's bytes; None if it is not there.")
      .def_property_readonly("fd", &NodeCache::fd)
      .def_property_readonly("ring_bytes", &NodeCache::ring_bytes)
      .def("counters", [](const NodeCache& self) {
        const NodeCache::Counters counted = self.counters();
        py::dict found;
        found["hits"] = counted.hits;
        found["misses"] = counted.misses;
        found["spoiled"] = counted.spoiled;
        found["kept"] = counted.kept;
        found["refused"] = counted.refused;
        return found;
      });
}

}  // namespace hpcore::bind
