// Python names of the dataset room's reading: SampleReader, mark_documents.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bind/errors.hpp"
#include "bind/register.hpp"
#include "dataset/document_marks.hpp"
#include "dataset/sample_reader.hpp"
#include "dataset/widen.hpp"

namespace py = pybind11;

namespace hpcore::bind {
namespace {

using dataset::DatasetFile;
using dataset::ReadMode;
using dataset::SampleReader;
using dataset::Target;

std::vector<uint64_t> checked_samples(const std::vector<int64_t>& samples) {
  for (const int64_t sample : samples) {
    if (sample < 0) {
      check(Status(Code::kInvalid, "sample " + std::to_string(sample) + " is negative"));
    }
  }
  return {samples.begin(), samples.end()};
}

Target target_at(uintptr_t address, unsigned item_bytes) {
  return {reinterpret_cast<void*>(address), item_bytes};
}

void gather(const SampleReader& self, const std::vector<int64_t>& samples, uintptr_t out,
            unsigned item_bytes) {
  const std::vector<uint64_t> wanted = checked_samples(samples);
  Status status;
  {
    const py::gil_scoped_release release;
    status = self.gather(wanted, target_at(out, item_bytes));
  }
  check(status);
}

void gather_order(const SampleReader& self, uint64_t seed, uint64_t first, uint64_t count,
                  bool shuffle, uintptr_t out, unsigned item_bytes) {
  Status status;
  {
    const py::gil_scoped_release release;
    status = self.gather_order(seed, first, count, shuffle, target_at(out, item_bytes));
  }
  check(status);
}

uint64_t announce(SampleReader& self, uint64_t seed, uint64_t first, uint64_t count, bool shuffle) {
  const py::gil_scoped_release release;
  return self.will_need(self.order(seed, first, count, shuffle));
}

void mark(const DatasetFile& file, uint64_t field, const std::vector<int64_t>& samples,
          uint64_t stride, uint64_t length, uintptr_t numbers, uintptr_t places) {
  const std::vector<uint64_t> wanted = checked_samples(samples);
  Status status;
  {
    const py::gil_scoped_release release;
    status = dataset::mark_documents(file, field, wanted, stride, length,
                                     reinterpret_cast<int32_t*>(numbers),
                                     reinterpret_cast<int32_t*>(places));
  }
  check(status);
}

}  // namespace

void register_reader(py::module_& module) {
  py::class_<SampleReader, std::shared_ptr<SampleReader>>(
      module, "SampleReader", "Gathers samples of one field into the caller's memory. Thread-safe.")
      .def(py::init([](std::shared_ptr<DatasetFile> file, uint64_t field, uint64_t stride,
                       uint64_t length, bool mapped, unsigned threads) {
             const ReadMode mode = mapped ? ReadMode::kMap : ReadMode::kRead;
             return check(
                 SampleReader::make(std::move(file), {field, stride, length, mode, threads}));
           }),
           py::arg("file"), py::arg("field"), py::arg("stride") = 1, py::arg("length") = 1,
           py::arg("mapped") = true, py::arg("threads") = 1)
      .def_property_readonly("samples", &SampleReader::samples)
      .def_property_readonly("numbers", &SampleReader::numbers)
      .def_property_readonly("sample_bytes", &SampleReader::sample_bytes)
      .def_property_readonly("fd", &SampleReader::fd)
      .def(
          "check",
          [](const SampleReader& self, int64_t sample) {
            Status status;
            const std::vector<uint64_t> wanted = checked_samples({sample});
            {
              const py::gil_scoped_release release;
              status = self.check(wanted[0]);
            }
            check(status);
            return self.offset_of(wanted[0]);
          },
          py::arg("sample"), "Checks the sample's blocks; returns where it lies in the file.")
      .def("gather", &gather, py::arg("samples"), py::arg("out_address"), py::arg("item_bytes"),
           "Writes [len(samples), numbers] at out_address; the caller keeps that memory alive.")
      .def("gather_order", &gather_order, py::arg("seed"), py::arg("first"), py::arg("count"),
           py::arg("shuffle"), py::arg("out_address"), py::arg("item_bytes"),
           "The same for the samples at positions first ... first + count - 1 of the order.")
      .def(
          "order",
          [](const SampleReader& self, uint64_t seed, uint64_t first, uint64_t count,
             bool shuffle) { return self.order(seed, first, count, shuffle); },
          py::arg("seed"), py::arg("first"), py::arg("count"), py::arg("shuffle"))
      .def(
          "will_need",
          [](SampleReader& self, const std::vector<int64_t>& samples) {
            return self.will_need(checked_samples(samples));
          },
          py::arg("samples"))
      .def("announce", &announce, py::arg("seed"), py::arg("first"), py::arg("count"),
           py::arg("shuffle"));
  module.def(
      "copy_bytes",
      [](const DatasetFile& file, uint64_t field, uint64_t begin, uint64_t bytes, uintptr_t out) {
        Status status;
        {
          const py::gil_scoped_release release;
          status = dataset::copy_bytes(file, field, begin, bytes, reinterpret_cast<void*>(out));
        }
        check(status);
      },
      py::arg("file"), py::arg("field"), py::arg("begin"), py::arg("bytes"),
      py::arg("out_address"));
  module.def("mark_documents", &mark, py::arg("file"), py::arg("field"), py::arg("samples"),
             py::arg("stride"), py::arg("length"), py::arg("numbers_address"),
             py::arg("places_address"));
  module.def(
      "maps_file",
      [](uint64_t file_bytes, uint64_t memory_bytes) {
        return dataset::choose_mode(file_bytes, memory_bytes) == ReadMode::kMap;
      },
      py::arg("file_bytes"), py::arg("memory_bytes"));
  module.def("widen_code_name", &dataset::widen_code_name);
}

}  // namespace hpcore::bind
