// Python names of the dataset room's reading side: Permutation, gather. The file and its writer:
// register_dataset_file.cpp, register_dataset_writer.cpp.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bind/dataset_arguments.hpp"
#include "bind/errors.hpp"
#include "bind/register.hpp"
#include "dataset/gather.hpp"
#include "dataset/permutation.hpp"

namespace py = pybind11;

namespace hpcore::bind {
namespace {

using dataset::DatasetFile;
using dataset::Permutation;
using dataset::SampleShape;

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

using SharedFile = std::shared_ptr<DatasetFile>;

void gather(const SharedFile& file, int64_t field, const std::vector<int64_t>& indices,
            int64_t stride, int64_t length, uintptr_t out) {
  std::vector<uint64_t> rows(indices.size());
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = unsigned_of(indices[i], "a sample index");
  const SampleShape shape{unsigned_of(stride, "the stride"), unsigned_of(length, "the length")};
  if (shape.stride == 0 || shape.length == 0) {
    check(Status(Code::kInvalid, "stride and length of a sample must be positive"));
  }
  const uint64_t at = field_index(*file, field);
  Status status;
  {
    const py::gil_scoped_release release;
    status = dataset::gather(*file, at, rows, shape, reinterpret_cast<int64_t*>(out));
  }
  check(status);
}

void register_gather(py::module_& module) {
  module.def(
      "sample_count",
      [](const SharedFile& file, int64_t field, int64_t stride, int64_t length) {
        if (stride < 1 || length < 1) {
          check(Status(Code::kInvalid, "stride and length of a sample must be positive"));
        }
        return dataset::sample_count(
            file->field(field_index(*file, field)),
            {static_cast<uint64_t>(stride), static_cast<uint64_t>(length)});
      },
      py::arg("file"), py::arg("field"), py::arg("stride"), py::arg("length"),
      "Samples of `length` tokens, `stride` apart; 0 for a field that is no token stream.");
  module.def(
      "gather", &gather, py::arg("file"), py::arg("field"), py::arg("indices"), py::arg("stride"),
      py::arg("length"), py::arg("out_address"),
      "Writes int64 [len(indices), length] at out_address; the caller keeps that memory alive.");
  module.def(
      "copy_tokens",
      [](const SharedFile& file, int64_t field, int64_t first, int64_t count, uintptr_t out) {
        const uint64_t begin = unsigned_of(first, "the first token");
        const uint64_t wanted = unsigned_of(count, "the number of tokens");
        const uint64_t at = field_index(*file, field);
        Status status;
        {
          const py::gil_scoped_release release;
          status = dataset::copy_tokens(*file, at, begin, wanted, reinterpret_cast<int64_t*>(out));
        }
        check(status);
      },
      py::arg("file"), py::arg("field"), py::arg("first"), py::arg("count"), py::arg("out_address"),
      "Writes int64 [count] at out_address.");
}

}  // namespace

void register_dataset(py::module_& module) {
  register_permutation(module);
  register_dataset_file(module);
  register_dataset_writer(module);
  register_gather(module);
}

}  // namespace hpcore::bind
