// The Python module _c10d: makes c10d stores and backends. Built with torch's own pybind11, so that
// torch sees them.
#include <pybind11/chrono.h>
#include <pybind11/stl.h>

#include "roster/worker.hpp"
#include "torch/backend.hpp"
#include "torch/error.hpp"
#include "torch/store.hpp"

PYBIND11_DECLARE_HOLDER_TYPE(T, c10::intrusive_ptr<T>, true)

namespace hpcore::torch_binding {
namespace {

namespace py = pybind11;

// What a capsule made by _core carries.
template <typename T>
std::shared_ptr<T> from_capsule(const py::capsule& capsule) {
  return *static_cast<std::shared_ptr<T>*>(capsule.get_pointer());
}

std::shared_ptr<Revocation> revocation_of(const py::object& worker) {
  if (worker.is_none()) return std::make_shared<Revocation>();  // nothing revokes it
  return from_capsule<roster::Worker>(worker)->revocation();
}

void register_store(py::module_& module) {
  module.def(
      "make_store",
      [](const py::capsule& store, std::string prefix, std::chrono::milliseconds timeout,
         const py::object& worker, uint64_t generation) {
        std::shared_ptr<Interrupt> interrupt;
        if (!worker.is_none()) {
          interrupt = std::make_shared<RevocationInterrupt>(revocation_of(worker), generation);
        }
        return make_store(from_capsule<SharedStore>(store), std::move(prefix), std::move(interrupt),
                          timeout);
      },
      py::arg("store"), py::arg("prefix"), py::arg("timeout"), py::arg("worker") = py::none(),
      py::arg("generation") = 1,
      "A torch.distributed.Store over a SharedStore's native_handle; its keys begin with prefix. "
      "With a "
      "Worker's native_handle its waits raise RosterChanged when the generation is over.");
}

void register_backend(py::module_& module) {
  module.def(
      "make_backend",
      [](const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
         std::chrono::milliseconds timeout, std::string name, std::vector<int64_t> global_ranks,
         const py::object& worker, uint64_t generation,
         bool rehearsal) -> c10::intrusive_ptr<c10d::Backend> {
        Group::Facts facts{store,
                           rank,
                           size,
                           std::move(name),
                           std::move(global_ranks),
                           revocation_of(worker),
                           generation,
                           rehearsal};
        const py::gil_scoped_release release;  // the store may be one that waits
        return c10::make_intrusive<HpcoreBackend>(std::move(facts), timeout);
      },
      py::arg("store"), py::arg("rank"), py::arg("size"), py::arg("timeout"), py::arg("name"),
      py::arg("global_ranks"), py::arg("worker"), py::arg("generation"), py::arg("rehearsal"),
      "The hpcore backend of one process group. worker: a Worker's native_handle or None.");
}

}  // namespace
}  // namespace hpcore::torch_binding

PYBIND11_MODULE(_c10d, module) {
  module.doc() = "hpcore's c10d store and backend";
  pybind11::module_::import("torch.distributed");  // registers the base classes
  hpcore::torch_binding::register_errors();
  hpcore::torch_binding::register_store(module);
  hpcore::torch_binding::register_backend(module);
}
