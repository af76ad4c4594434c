// Python name of the order of samples: Permutation. The file and its writer:
// register_dataset_file.cpp, register_dataset_writer.cpp; readers: register_reader.cpp.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bind/dataset_arguments.hpp"
#include "bind/errors.hpp"
#include "bind/register.hpp"
#include "dataset/permutation.hpp"

namespace py = pybind11;

namespace hpcore::bind {
namespace {

using dataset::Permutation;

Status position_error(uint64_t first, uint64_t count, uint64_t limit) {
  return {Code::kInvalid, "positions " + std::to_string(first) + " to " +
                              std::to_string(first + count) + " are out of range: there are " +
                              std::to_string(limit)};
}

void register_permutation(py::module_& module) {
  py::class_<Permutation>(module, "Permutation",
                          "Keyed permutation of range(count): the sample order of one epoch.")
      .def(py::init([](int64_t count, uint64_t seed, uint64_t epoch) {
             return check(
                 Permutation::make(unsigned_of(count, "the number of samples"), seed, epoch));
           }),
           py::arg("count"), py::arg("seed"), py::arg("epoch"))
      .def("__len__", &Permutation::count)
      .def(
          "__call__",
          [](const Permutation& self, int64_t position) {
            const uint64_t at = unsigned_of(position, "the position");
            if (at >= self.count()) check(position_error(at, 1, self.count()));
            return self.at(at);
          },
          py::arg("position"))
      .def(
          "many",
          [](const Permutation& self, int64_t first, int64_t count) {
            const uint64_t begin = unsigned_of(first, "the first position");
            const uint64_t wanted = unsigned_of(count, "the number of positions");
            if (begin > self.count() || wanted > self.count() - begin) {
              check(position_error(begin, wanted, self.count()));
            }
            std::vector<uint64_t> samples(wanted);
            {
              const py::gil_scoped_release release;
              for (uint64_t i = 0; i < wanted; ++i) samples[i] = self.at(begin + i);
            }
            return samples;
          },
          py::arg("first"), py::arg("count"));
}

}  // namespace

void register_dataset(py::module_& module) {
  register_permutation(module);
  register_dataset_file(module);
  register_dataset_writer(module);
}

}  // namespace hpcore::bind
