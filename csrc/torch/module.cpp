// The Python module _c10d: makes c10d stores and backends. Built with torch's own pybind11, so that
// torch sees them.
#include <pybind11/chrono.h>
#include <pybind11/stl.h>

#include "roster/worker.hpp"
#include "torch/backend.hpp"
#include "torch/composite.hpp"
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

std::shared_ptr<roster::Worker> worker_of(const py::object& worker) {
  return worker.is_none() ? nullptr : from_capsule<roster::Worker>(worker);
}

std::shared_ptr<Revocation> revocation_of(const std::shared_ptr<roster::Worker>& worker) {
  return worker ? worker->revocation() : std::make_shared<Revocation>();  // nothing revokes it
}

using StorePtr = c10::intrusive_ptr<HpcoreStore>;

StorePtr make_store(const py::capsule& store, std::string prefix, std::chrono::milliseconds timeout,
                    const py::object& worker, uint64_t generation) {
  std::shared_ptr<Interrupt> interrupt;
  if (!worker.is_none()) {
    interrupt = std::make_shared<RevocationInterrupt>(revocation_of(worker_of(worker)), generation);
  }
  return c10::make_intrusive<HpcoreStore>(from_capsule<SharedStore>(store), std::move(prefix),
                                          std::move(interrupt), timeout);
}

using StoreMemory = SharedStore;

// What a store needs before it is one. _core has all of it, and takes longer to load than the rest
// of init_process_group.
void register_memory(py::module_& module) {
  using Handle = std::shared_ptr<StoreMemory>;
  py::class_<StoreMemory, Handle>(module, "StoreMemory", py::module_local(),
                                  "The shared memory of a store.")
      .def_static(
          "create",
          [](size_t size_bytes, const std::string& name, const std::string& creator) {
            Handle made = check(StoreMemory::create(size_bytes, name));
            check(made->set("creator", creator));
            return made;
          },
          py::arg("size_bytes"), py::arg("name"), py::arg("creator"),
          "Memory in a memfd, which /proc shows under that name.")
      .def_static(
          "open",
          [](const std::string& path, const std::string& creator) -> std::optional<Handle> {
            auto found = StoreMemory::open(path);
            if (!found.ok()) return std::nullopt;
            const auto there = found.value()->check({"creator"});
            if (!there.ok() || !there.value()) return std::nullopt;
            const auto who = found.value()->get("creator", {Clock::now(), nullptr});
            if (!who.ok() || who.value() != creator) return std::nullopt;
            return std::move(found.value());
          },
          py::arg("path"), py::arg("creator"),
          "That in another process's descriptor, /proc/<pid>/fd/<fd>. None if it is gone, not "
          "ready "
          "yet, or was made by another process than `creator`.")
      .def_property_readonly(
          "native_handle",
          [](const Handle& self) {
            return py::capsule(new Handle(self),
                               [](void* handle) { delete static_cast<Handle*>(handle); });
          },
          "For Store.");
}

void register_store(py::module_& module) {
  py::class_<HpcoreStore, c10d::Store, StorePtr>(
      module, "Store",
      "A torch.distributed.Store over a StoreMemory's (or _core.SharedStore's) native_handle; its "
      "keys begin with prefix. "
      "With a Worker's native_handle its waits raise RosterChanged when the generation is over.")
      .def(py::init(&make_store), py::arg("store"), py::arg("prefix"), py::arg("timeout"),
           py::arg("worker") = py::none(), py::arg("generation") = 1)
      .def_property_readonly("prefix", &HpcoreStore::prefix, "What its keys begin with.");
}

void register_resources(py::module_& module) {
  py::class_<FlightRecorder, std::shared_ptr<FlightRecorder>>(
      module, "FlightRecorder", "The last operations of this process's groups. Thread-safe.")
      .def(py::init<size_t, std::string>(), py::arg("capacity"), py::arg("dump_prefix"))
      .def("json", &FlightRecorder::json, py::call_guard<py::gil_scoped_release>(),
           "All entries, in the format of torch's own flight recorder.")
      .def("in_flight", &FlightRecorder::in_flight, py::arg("most") = 8,
           py::call_guard<py::gil_scoped_release>(), "What has begun and not ended, in one line.");
  py::class_<MemoryBudget, std::shared_ptr<MemoryBudget>>(
      module, "MemoryBudget", "Shared memory for the buffers of this process's groups, in bytes.")
      .def(py::init<size_t, size_t>(), py::arg("total_bytes") = MemoryBudget::kTotalBytes,
           py::arg("group_bytes") = MemoryBudget::kGroupBytes)
      .def_property_readonly("taken_bytes", &MemoryBudget::taken_bytes,
                             "What its groups have now; each group counts with this rank's area.");
}

void register_backend(py::module_& module) {
  module.def(
      "make_backend",
      [](const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
         std::chrono::milliseconds timeout, std::string name, std::vector<int64_t> global_ranks,
         const py::object& worker, uint64_t generation, bool rehearsal,
         std::optional<std::shared_ptr<FlightRecorder>> recorder,
         std::optional<std::shared_ptr<MemoryBudget>> budget,
         bool waits) -> c10::intrusive_ptr<c10d::Backend> {
        Group::Facts facts{store,
                           rank,
                           size,
                           std::move(name),
                           std::move(global_ranks),
                           revocation_of(worker_of(worker)),
                           generation,
                           rehearsal,
                           !worker.is_none(),
                           recorder.value_or(nullptr)};
        if (budget) facts.budget = *budget;
        facts.waiting = waits;
        facts.worker = worker_of(worker);
        const py::gil_scoped_release release;  // the store may be one that waits
        return c10::make_intrusive<HpcoreBackend>(std::move(facts), timeout);
      },
      py::arg("store"), py::arg("rank"), py::arg("size"), py::arg("timeout"), py::arg("name"),
      py::arg("global_ranks"), py::arg("worker"), py::arg("generation"), py::arg("rehearsal"),
      py::arg("recorder") = py::none(), py::arg("budget") = py::none(), py::arg("waits") = false,
      "The hpcore backend of one process group. worker: a Worker's native_handle or None. waits: "
      "it "
      "has no members before its first reconfigure (torch 2.14).");
}

// The Python function may be called, and dropped, by a thread without Python's lock.
CompositeBackend::Make maker_of(py::object make) {
  std::shared_ptr<py::object> held(new py::object(std::move(make)), [](py::object* object) {
    const py::gil_scoped_acquire acquire;
    delete object;
  });
  return [held](const CompositeBackend::Facts& facts) {
    const py::gil_scoped_acquire acquire;
    return (*held)(facts.store, facts.rank, facts.size, facts.timeout, facts.name,
                   facts.global_ranks)
        .cast<BackendPtr>();
  };
}

void register_composite(py::module_& module) {
  module.def(
      "make_composite",
      [](BackendPtr cpu, const c10::intrusive_ptr<c10d::Store>& store,
         std::chrono::milliseconds timeout, py::object make, const std::string& device_type,
         const py::object& worker, uint64_t generation) -> BackendPtr {
        CompositeBackend::Parts parts;
        const auto options = cpu->getBackendOptions();
        parts.facts = {
            store,
            cpu->getRank(),
            cpu->getSize(),
            timeout,
            options->group_name,
            {options->global_ranks_in_group.begin(), options->global_ranks_in_group.end()}};
        parts.cpu = std::move(cpu);
        parts.make_accelerator = maker_of(std::move(make));
        parts.device_type = c10::Device(device_type).type();
        parts.generation = generation;
        if (!worker.is_none()) parts.revocation = revocation_of(worker_of(worker));
        return c10::make_intrusive<CompositeBackend>(std::move(parts));
      },
      py::arg("cpu"), py::arg("store"), py::arg("timeout"), py::arg("make"), py::arg("device_type"),
      py::arg("worker"), py::arg("generation"),
      "One backend of two: tensors on device_type go to the one that make(store, rank, size, "
      "timeout, name, global_ranks) returns when the first of them comes, all others to cpu.");
}

}  // namespace
}  // namespace hpcore::torch_binding

PYBIND11_MODULE(HPCORE_C10D_MODULE, module) {  // _c10d_<major>_<minor> of torch
  module.doc() = "hpcore's c10d store and backend";
  pybind11::module_::import("torch.distributed");  // registers the base classes
  hpcore::torch_binding::register_errors();
  hpcore::torch_binding::register_memory(module);
  hpcore::torch_binding::register_store(module);
  hpcore::torch_binding::register_resources(module);
  hpcore::torch_binding::register_backend(module);
  hpcore::torch_binding::register_composite(module);
}
