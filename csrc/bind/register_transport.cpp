// Python names of the transport room: what a process lays open, and what it reads from others.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "bind/errors.hpp"
#include "bind/regions.hpp"
#include "bind/register.hpp"
#include "bind/remote_memory.hpp"
#include "bind/waiting.hpp"
#include "roster/worker.hpp"
#include "state/exposure.hpp"
#include "transport/fabric_memory.hpp"
#include "transport/fabric_server.hpp"
#include "transport/staging.hpp"

namespace py = pybind11;

namespace hpcore::bind {
namespace {

using roster::NodeSegment;
using transport::Fabric;
using transport::FabricMemory;
using transport::FabricOptions;
using transport::FabricServer;
using transport::RegionMap;

std::shared_ptr<Fabric> open_fabric(const std::string& provider, const std::string& library,
                                    const std::vector<std::string>& domains, uint64_t piece_bytes,
                                    uint64_t window_bytes, double answer_limit_s,
                                    const std::vector<std::string>& without) {
  FabricOptions options;
  options.provider = provider;
  options.library = library;
  options.domains = domains;
  if (piece_bytes != 0) options.piece_bytes = piece_bytes;
  if (window_bytes != 0) options.window_bytes = window_bytes;
  options.answer_limit_s = answer_limit_s;
  for (const std::string& name : without) {
    if (name == "waiting") {
      options.limits.poll_only = true;
    } else if (name == "direct") {
      options.limits.bounce = true;
    } else if (name == "vectors") {
      options.limits.plain_reads = true;
    } else {
      check(Status(Code::kInvalid,
                   "capability \"" + name + "\" is none of waiting, direct, vectors"));
    }
  }
  const py::gil_scoped_release release;
  Result<std::shared_ptr<Fabric>> result = Fabric::open(options);
  const py::gil_scoped_acquire acquire;
  return check(std::move(result));
}

std::unique_ptr<Memory> open_remote(std::shared_ptr<Fabric> fabric, const py::bytes& address,
                                    uint64_t generation, const Regions& expected) {
  auto memory = std::make_unique<Memory>();
  memory->regions = std::make_unique<RegionMap>(regions_of(expected));
  memory->reader = check(
      FabricMemory::open(std::move(fabric), std::string(address), generation, *memory->regions));
  return memory;
}

std::unique_ptr<Memory> open_local(pid_t pid, const Regions& regions, const std::string& method,
                                   const std::optional<std::shared_ptr<NodeSegment>>& held,
                                   int slot, uint64_t generation) {
  auto memory = std::make_unique<Memory>();
  memory->regions = std::make_unique<RegionMap>(regions_of(regions));
  const std::shared_ptr<NodeSegment> segment = held.value_or(nullptr);
  memory->keeper = segment;
  transport::RemoteProcess process{pid, memory->regions.get(), nullptr, generation};
  if (segment) {
    if (!segment->has_slot(slot)) check(Status(Code::kInvalid, "no slot " + std::to_string(slot)));
    process.staging = state::Exposure(segment->exposure_area(slot).data()).staging();
  }
  memory->reader = check(transport::open_remote_memory(process, method_of(method)));
  return memory;
}

void register_fabric(py::module_& module) {
  py::class_<Fabric, std::shared_ptr<Fabric>>(
      module, "Fabric",
      "A process's way into a network through libfabric. Raises Unsupported, NotFound.")
      .def(py::init(&open_fabric), py::kw_only(), py::arg("provider") = "", py::arg("library") = "",
           py::arg("domains") = std::vector<std::string>(), py::arg("piece_bytes") = 0,
           py::arg("window_bytes") = 0, py::arg("answer_limit_s") = 2.0,
           py::arg("without") = std::vector<std::string>())
      .def_property_readonly("provider", &Fabric::provider)
      .def_property_readonly("version",
                             [](const Fabric& self) { return self.library().version_text(); })
      .def_property_readonly("domains",
                             [](const Fabric& self) {
                               std::vector<std::string> names;
                               for (const auto& rail : self.rails())
                                 names.push_back(rail->domain_name());
                               return names;
                             })
      .def_property_readonly("link_bytes_per_s", &Fabric::link_bytes_per_s, "0: not known.")
      .def_property_readonly("offers_device_memory", &Fabric::offers_device_memory)
      .def("describe", &Fabric::describe)
      .def(
          "release",
          [](Fabric& self, const Regions& regions) { self.release(regions_of(regions)); },
          py::arg("regions"), "Forgets what is registered of this memory, before it is unmapped.");
}

void register_server(py::module_& module) {
  py::class_<FabricServer, std::shared_ptr<FabricServer>>(
      module, "FabricServer", "Lets peers read this process's memory over a fabric.")
      .def(py::init([](std::shared_ptr<Fabric> fabric) {
             return std::shared_ptr<FabricServer>(check(FabricServer::open(std::move(fabric))));
           }),
           py::arg("fabric"))
      .def(
          "expose",
          [](FabricServer& self, const Regions& pairs, uint64_t generation) {
            const RegionMap regions(regions_of(pairs));
            Result<std::string> result = Status();
            {
              const py::gil_scoped_release release;
              result = self.expose(regions, generation);
            }
            return py::bytes(check(std::move(result)));
          },
          py::arg("regions"), py::arg("generation") = 0,
          "The address that a peer needs. The memory must stay until withdraw() or close().")
      .def(
          "withdraw",
          [](FabricServer& self, const Regions& regions) {
            self.withdraw(RegionMap(regions_of(regions)));
          },
          py::arg("regions"), py::call_guard<py::gil_scoped_release>())
      .def("close", &FabricServer::close, py::call_guard<py::gil_scoped_release>(),
           "Cuts off whoever reads. Twice is fine.");
}

void register_memory(py::module_& module) {
  py::class_<Memory>(module, "RemoteMemory", "Reads another process's exposed regions.")
      .def_static("of_process", &open_local, py::arg("pid"), py::arg("regions"),
                  py::arg("method") = "probe", py::arg("segment") = std::nullopt,
                  py::arg("slot") = 0, py::arg("generation") = 0, "On this node.")
      .def_static("over_fabric", &open_remote, py::arg("fabric"), py::arg("address"),
                  py::arg("generation"), py::arg("regions"),
                  "On any host; `regions` have the sizes that are expected.")
      .def(
          "read",
          [](Memory& self, uint64_t offset, uint64_t bytes, const Regions& into, double timeout_s) {
            const RegionMap map(regions_of(into));
            Status status;
            {
              const py::gil_scoped_release release;
              status = self.read(offset, bytes, map, deadline_in(timeout_s));
            }
            check(status);
          },
          py::arg("offset"), py::arg("bytes"), py::arg("into"), py::arg("timeout_s") = 30.0,
          "Copies the bytes to the same offsets of `into`. Blocks. Raises PeerDead, "
          "MismatchError, DeadlineExceeded, Aborted.")
      .def(
          "abort", [](Memory& self) { self.aborted.store(true); },
          "Ends reads, now and later; from any thread.")
      .def_property_readonly("method", [](const Memory& self) { return self.reader->method(); })
      .def_property_readonly(
          "note", [](const Memory& self) { return self.reader->note(); },
          "What an operator should know, such as a poor rate; else empty.");
}

void register_staging(py::module_& module) {
  struct Server {
    std::unique_ptr<RegionMap> regions;
    std::shared_ptr<NodeSegment> segment;
    std::unique_ptr<transport::StagingServer> server;
  };
  py::class_<Server>(module, "StagingServer",
                     "Copies this process's memory into its slot's staging area for readers.")
      .def(py::init([](std::shared_ptr<NodeSegment> segment, int slot, const Regions& pairs,
                       uint64_t generation) {
             auto made = std::make_unique<Server>();
             made->regions = std::make_unique<RegionMap>(regions_of(pairs));
             auto* area = state::Exposure(segment->exposure_area(slot).data()).staging();
             made->segment = std::move(segment);
             area->reset(generation);
             made->server = std::make_unique<transport::StagingServer>(
                 area, made->regions.get(), generation, [] { return false; });
             check(made->server->start());
             return made;
           }),
           py::arg("segment"), py::arg("slot"), py::arg("regions"), py::arg("generation") = 0)
      .def(
          "close", [](Server& self) { self.server->stop(); },
          py::call_guard<py::gil_scoped_release>());
}

}  // namespace

void register_transport(py::module_& module) {
  register_fabric(module);
  register_server(module);
  register_memory(module);
  register_staging(module);
  register_device_memory(module);
}

}  // namespace hpcore::bind
