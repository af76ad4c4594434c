// Python's view of the exact sums of collective/: arrays are addresses, nothing is copied.
#include <pybind11/stl.h>

#include <tuple>

#include "bind/collective_arguments.hpp"
#include "bind/register.hpp"
#include "collective/exact_number.hpp"
#include "collective/exact_sums.hpp"

namespace hpcore::bind {
namespace {

using collective::ExactNumber;
using collective::ExactSums;
using collective::Instructions;
// (at, address, elements, first)
using Terms = std::vector<std::tuple<size_t, uintptr_t, size_t, bool>>;

Instructions instructions_named(const std::string& name) {
  std::string known;
  for (const Instructions usable : collective::usable_instructions()) {
    if (name.empty() || name == collective::name_of(usable)) return usable;
    known += std::string(known.empty() ? "" : ", ") + collective::name_of(usable);
  }
  check(Status(Code::kUnsupported, "this CPU has no \"" + name + "\", but " + known));
  return Instructions::kPortable;
}

std::span<const uint64_t> elements_at(uintptr_t address, size_t count) {
  return {reinterpret_cast<const uint64_t*>(address), count};
}

void fold(ExactSums& self, const Terms& terms, const std::string& dtype) {
  const DType type = dtype_of(dtype);
  Status status;
  {
    const py::gil_scoped_release release;
    for (const auto& [at, address, elements, first] : terms) {
      status = self.fold(at, reinterpret_cast<const void*>(address), elements, type, first);
      if (!status.ok()) break;
    }
  }
  check(status);
}

void narrow(const ExactSums& self, const Terms& targets, const std::string& dtype) {
  const DType type = dtype_of(dtype);
  Status status;
  {
    const py::gil_scoped_release release;
    for (const auto& [at, address, elements, first] : targets) {
      status = self.narrow(reinterpret_cast<void*>(address), at, elements, type);
      if (!status.ok()) break;
    }
  }
  check(status);
}

void reduce_exactly(uintptr_t target, const std::vector<uintptr_t>& sources, size_t elements,
                    const std::string& dtype, const std::string& instructions) {
  const DType type = dtype_of(dtype);
  const auto kernel = collective::find_exact_kernel(type, instructions_named(instructions));
  if (kernel == nullptr) {
    check(collective::no_such_reduction(type, collective::ReduceOp::kExactSum));
  }
  std::vector<const void*> from;
  for (const uintptr_t source : sources) from.push_back(reinterpret_cast<void*>(source));
  kernel(reinterpret_cast<void*>(target), from.data(), static_cast<int>(from.size()), elements, {});
}

double exact_sum(const py::iterable& values) {
  ExactNumber sum;
  size_t count = 0;
  for (const auto& value : values) {
    sum.add(value.cast<double>());
    if (++count % (size_t{1} << 30) == 0) sum.normalise();
  }
  return sum.round();
}

void register_sums(py::module_& module) {
  py::class_<ExactSums>(module, "ExactSums",
                        "Exact sums of many elements, over an array of float64 that the caller "
                        "keeps; terms in any order. One thread.")
      .def(py::init([](uintptr_t address, size_t elements, const std::string& instructions) {
             return ExactSums(reinterpret_cast<double*>(address), elements,
                              instructions_named(instructions));
           }),
           py::arg("address"), py::arg("elements"), py::arg("instructions") = "")
      .def("clear", &ExactSums::clear, "Forgets what does not lie in the array.")
      .def("fold", &fold, py::arg("terms"), py::arg("dtype"),
           "Adds terms, (at, address, elements, first) each; first: whatever was there before.")
      .def("narrow", &narrow, py::arg("targets"), py::arg("dtype"),
           "Writes sums, rounded, to (at, address, elements, whatever).")
      .def(
          "zero", [](ExactSums& self, size_t at, size_t count) { check(self.zero(at, count)); },
          py::arg("at"), py::arg("count"))
      .def_property_readonly("all_fit", &ExactSums::all_fit,
                             "Whether the array holds all of all sums.")
      .def(
          "unfit",
          [](ExactSums& self) {
            const std::vector<uint64_t> found = self.unfit();
            return py::bytes(reinterpret_cast<const char*>(found.data()),
                             found.size() * sizeof(uint64_t));
          },
          "Elements of which a part is not in the array, ascending, as uint64.")
      .def(
          "put_words",
          [](ExactSums& self, uintptr_t elements, size_t count, uintptr_t words) {
            check(self.put_words(elements_at(elements, count), reinterpret_cast<int64_t*>(words)));
          },
          py::arg("elements"), py::arg("count"), py::arg("words"),
          "The sums of these elements as EXACT_WORDS int64 each, to be added over ranks.")
      .def(
          "settle",
          [](ExactSums& self, uintptr_t elements, size_t count, uintptr_t words) {
            check(
                self.settle(elements_at(elements, count), reinterpret_cast<const int64_t*>(words)));
          },
          py::arg("elements"), py::arg("count"), py::arg("words"),
          "Rounds words that were added over ranks into the array.");
}

}  // namespace

void register_exact(py::module_& module) {
  register_sums(module);
  module.attr("EXACT_WORDS") = ExactNumber::kNarrowWords;
  module.def("reduce_exactly", &reduce_exactly, py::arg("target"), py::arg("sources"),
             py::arg("elements"), py::arg("dtype"), py::arg("instructions") = "",
             "What all_reduce with exact_sum does to the arrays at these addresses, one a rank.");
  module.def("exact_sum", &exact_sum, py::arg("values"),
             "The sum of numbers, rounded once; the same in any order. +0 if it is zero.");
}

}  // namespace hpcore::bind
