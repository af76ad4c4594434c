// For tests: CoreSpread over cores that a test makes up, and the real cores' own two calls.
#include <pybind11/stl.h>

#include "bind/register.hpp"
#include "collective/core_spread.hpp"

namespace hpcore::bind {
namespace {

namespace py = pybind11;
using collective::Cores;
using collective::CoreSpread;

class PythonCores final : public Cores {
 public:
  explicit PythonCores(py::object cores) : cores_(std::move(cores)) {}
  [[nodiscard]] TimePoint now() const override {
    const auto since = std::chrono::duration<double>(cores_.attr("now")().cast<double>());
    return TimePoint(std::chrono::duration_cast<Clock::duration>(since));
  }
  [[nodiscard]] unsigned runnable() const override {
    return cores_.attr("runnable")().cast<unsigned>();
  }
  [[nodiscard]] unsigned online() const override {
    return cores_.attr("online")().cast<unsigned>();
  }
  [[nodiscard]] std::vector<double> idle_s() const override {
    return cores_.attr("idle_s")().cast<std::vector<double>>();
  }
  [[nodiscard]] std::vector<uint32_t> allowed() const override {
    return cores_.attr("allowed")().cast<std::vector<uint32_t>>();
  }
  uint32_t move_to(uint32_t core) override { return cores_.attr("move_to")(core).cast<uint32_t>(); }

 private:
  py::object cores_;
};

struct OwnedSpread {
  explicit OwnedSpread(py::object object) : cores(std::move(object)), spread(cores) {}
  PythonCores cores;
  CoreSpread spread;
};

}  // namespace

void register_cores(py::module_& module) {
  py::class_<OwnedSpread>(
      module, "_CoreSpread",
      "Tests only: when a waiting rank leaves the core that it shares. `cores`: "
      "now, runnable, online, idle_s, allowed, move_to(core). One thread.")
      .def(py::init<py::object>(), py::arg("cores"))
      .def(
          "look",
          [](OwnedSpread& self, bool shared, uint32_t core, const std::vector<uint32_t>& taken) {
            self.spread.look(shared, core, taken);
          },
          py::arg("shared"), py::arg("core"), py::arg("taken"))
      .def(
          "idle", [](const OwnedSpread& self, bool shared) { return self.spread.idle(shared); },
          py::arg("shared"));
  module.def(
      "_move_to_core", [](uint32_t core) { return collective::real_cores().move_to(core); },
      py::arg("core"), "Tests only: puts this thread on a core (from 1); where it then was, or 0.");
}

}  // namespace hpcore::bind
