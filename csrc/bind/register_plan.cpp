// Python names of state/transfer_plan.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bind/errors.hpp"
#include "bind/register.hpp"
#include "state/transfer_plan.hpp"

namespace py = pybind11;

namespace hpcore::bind {
namespace {

using state::Family;
using state::PlannedPull;
using state::PlanRates;
using state::PlanRequest;
using state::RankFacts;
using state::Remaining;
using state::TensorSize;

std::vector<PlannedPull> checked(Result<std::vector<PlannedPull>> result) {
  return check(std::move(result));
}

void register_facts(py::module_& module) {
  py::class_<RankFacts>(module, "RankFacts",
                        "One rank as a transfer plan sees it; equal labels: same place.")
      .def(py::init<uint32_t, uint32_t, uint32_t, uint64_t, bool, double>(), py::arg("process"),
           py::arg("node") = 0, py::arg("rack") = 0, py::arg("version") = 0,
           py::arg("healthy") = true, py::arg("rate_bytes_per_s") = 0.0)
      .def_readwrite("healthy", &RankFacts::healthy)
      .def_readwrite("version", &RankFacts::version)
      .def_readwrite("rate_bytes_per_s", &RankFacts::rate_bytes_per_s);
  py::class_<TensorSize>(module, "TensorSize", "A tensor of a manifest, for a transfer plan.")
      .def(py::init<std::string, uint64_t, uint32_t>(), py::arg("name"), py::arg("nbytes"),
           py::arg("family") = 0);
  py::class_<Family>(module, "PlanFamily",
                     "Tensors laid over the ranks in one way: ranks of one group hold equal bytes; "
                     "2**32 - 1: holds nothing.")
      .def(py::init<std::vector<uint32_t>, std::vector<uint64_t>>(), py::arg("group_of"),
           py::arg("group_bytes") = std::vector<uint64_t>());
  py::class_<PlanRates>(module, "PlanRates",
                        "Bytes/s by nearness (process, node, rack, elsewhere) and into a receiver.")
      .def(py::init([](double process, double node, double rack, double elsewhere, double intake) {
             return PlanRates{{process, node, rack, elsewhere}, intake};
           }),
           py::arg("process") = 20e9, py::arg("node") = 10e9, py::arg("rack") = 2.5e9,
           py::arg("elsewhere") = 1e9, py::arg("intake") = 20e9);
}

}  // namespace

void register_plan(py::module_& module) {
  register_facts(module);
  py::class_<PlannedPull>(module, "PlannedPull",
                          "Bytes [begin, end) of a family's range go from source to receiver.")
      .def_readonly("receiver", &PlannedPull::receiver)
      .def_readonly("source", &PlannedPull::source)
      .def_readonly("family", &PlannedPull::family)
      .def_readonly("begin", &PlannedPull::begin)
      .def_readonly("end", &PlannedPull::end);
  py::class_<Remaining>(module, "Remaining", "Bytes that have not arrived; whom not to ask again.")
      .def(py::init<uint32_t, uint32_t, uint64_t, uint64_t, std::vector<uint32_t>>(),
           py::arg("receiver"), py::arg("family"), py::arg("begin"), py::arg("end"),
           py::arg("refused") = std::vector<uint32_t>());
  py::class_<PlanRequest>(module, "PlanRequest", "Who holds what, where, how fast; who needs it.")
      .def(py::init<std::vector<TensorSize>, std::vector<Family>, std::vector<RankFacts>,
                    std::vector<uint32_t>, uint64_t, uint64_t, PlanRates>(),
           py::arg("tensors"), py::arg("families"), py::arg("ranks"), py::arg("receivers"),
           py::arg("version"), py::arg("chunk_bytes") = 1 << 20, py::arg("rates") = PlanRates());
  module.def(
      "plan_transfer",
      [](const PlanRequest& request) {
        Result<std::vector<PlannedPull>> result = Status(Code::kInvalid, "");
        {
          const py::gil_scoped_release release;
          result = state::plan_transfer(request);
        }
        return checked(std::move(result));
      },
      py::arg("request"),
      "Which receiver pulls which bytes from which source. Pure. Raises NotFound (with what is "
      "lost), InvalidArgument.");
  module.def(
      "replan_transfer",
      [](const PlanRequest& request, std::vector<Remaining> remaining) {
        return checked(state::replan_transfer(request, std::move(remaining)));
      },
      py::arg("request"), py::arg("remaining"),
      "The same for what has not arrived, with the ranks as they are now. Pure.");
}

}  // namespace hpcore::bind
