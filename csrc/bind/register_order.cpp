// Python names of the dataset room's orders: Interleave, MixtureOrder.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bind/errors.hpp"
#include "bind/register.hpp"
#include "dataset/interleave.hpp"
#include "dataset/mixture.hpp"
#include "dataset/permutation.hpp"

namespace py = pybind11;

namespace hpcore::bind {
namespace {

using dataset::Interleave;
using dataset::MixtureDraw;
using dataset::MixtureOrder;

void register_interleave(py::module_& module) {
  py::class_<Interleave>(module, "Interleave",
                         "Turns of several parties by weight, evenly spread. Immutable.")
      .def(py::init([](const std::vector<uint32_t>& weights) {
             return check(Interleave::make(weights));
           }),
           py::arg("weights"))
      .def(
          "many",
          [](const Interleave& self, uint64_t first, uint64_t count) {
            std::vector<uint32_t> parties(count);
            for (uint64_t i = 0; i < count; ++i) parties[i] = self.at(first + i).party;
            return parties;
          },
          py::arg("first"), py::arg("count"), "Who has the turns first ... first + count - 1.")
      .def(
          "nth", [](const Interleave& self, uint64_t position) { return self.at(position).nth; },
          py::arg("position"), "How many turns the party of this position had before it.")
      .def(
          "count",
          [](const Interleave& self, uint32_t party, uint64_t positions) {
            if (party >= self.parties()) {
              check(Status(Code::kInvalid, "there is no party " + std::to_string(party) + " of " +
                                               std::to_string(self.parties())));
            }
            return self.count(party, positions);
          },
          py::arg("party"), py::arg("positions"), "Turns of a party among the first positions.")
      .def_property_readonly("total", &Interleave::total);
}

void register_mixture(py::module_& module) {
  using Phases = std::vector<std::pair<uint64_t, std::vector<uint32_t>>>;
  py::class_<MixtureOrder>(module, "MixtureOrder",
                           "Position -> (member, its sample), by weights. Immutable.")
      .def(py::init(
               [](std::vector<uint64_t> counts, const Phases& phases, uint64_t seed, bool shuffle) {
                 std::vector<MixtureOrder::Phase> given;
                 for (const auto& [first, weights] : phases) given.push_back({first, weights});
                 return check(MixtureOrder::make(std::move(counts), given, seed, shuffle));
               }),
           py::arg("counts"), py::arg("phases"), py::arg("seed"), py::arg("shuffle") = true)
      .def(
          "many",
          [](const MixtureOrder& self, uint64_t first, uint64_t count) {
            std::vector<uint32_t> members(count);
            std::vector<uint64_t> samples(count);
            {
              const py::gil_scoped_release release;
              for (uint64_t i = 0; i < count; ++i) {
                const MixtureDraw draw = self.at(first + i);
                members[i] = draw.member;
                samples[i] = draw.sample;
              }
            }
            return py::make_tuple(std::move(members), std::move(samples));
          },
          py::arg("first"), py::arg("count"), "(members, samples) of count positions.")
      .def(
          "count",
          [](const MixtureOrder& self, uint32_t member, uint64_t positions) {
            if (member >= self.members()) {
              check(Status(Code::kInvalid, "there is no member " + std::to_string(member) + " of " +
                                               std::to_string(self.members())));
            }
            return self.count(member, positions);
          },
          py::arg("member"), py::arg("positions"), "Samples of a member among the first ones.");
}

}  // namespace

void register_order(py::module_& module) {
  module.attr("ORDER_VERSION") = dataset::kOrderVersion;
  register_interleave(module);
  register_mixture(module);
}

}  // namespace hpcore::bind
