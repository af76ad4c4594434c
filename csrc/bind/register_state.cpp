// Python names of the state room.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "bind/errors.hpp"
#include "bind/regions.hpp"
#include "bind/register.hpp"
#include "bind/waiting.hpp"
#include "roster/worker.hpp"
#include "state/receiver.hpp"
#include "state/source.hpp"
#include "transport/huge_pages.hpp"

namespace py = pybind11;

namespace hpcore::bind {
namespace {

using roster::Worker;
using state::PublishStats;
using state::PullStats;
using state::StateReceiver;
using state::StateSource;

using Arenas = std::vector<std::tuple<int, uint64_t, uint64_t, uint64_t>>;
using Shares = std::vector<std::tuple<size_t, uint64_t, uint64_t>>;
using Network = std::optional<std::shared_ptr<transport::Fabric>>;
using Device = std::optional<std::shared_ptr<transport::CudaDevice>>;
using Nccl = std::optional<std::shared_ptr<transport::NcclAccess>>;
using Sender = std::optional<std::shared_ptr<transport::NcclServer>>;
using Server = std::optional<std::shared_ptr<transport::FabricServer>>;

struct SourceAddress {
  int slot;
  pid_t pid;
  std::vector<transport::Region> regions;
  std::vector<transport::ArenaPlace> arenas;
  transport::Pace pace;
  std::string remote;
  std::string unreachable;
  std::string device;
  std::string nccl;
  std::string unique_id;
};

transport::ArenaPlace arena_of(const Arenas::value_type& place) {
  const auto& [fd, inode, address, bytes] = place;
  return {fd, inode, address, bytes};
}

void* exposure_of(const Worker& worker, int slot) {
  if (!worker.segment()->has_slot(slot)) {
    check(Status(Code::kInvalid, "there is no slot " + std::to_string(slot) +
                                     " in the node segment of " +
                                     std::to_string(worker.segment()->slots()) + " slots"));
  }
  return worker.segment()->exposure_area(slot).data();
}

std::unique_ptr<StateSource> make_source(const Worker& worker, uint64_t generation,
                                         const Regions& regions, uint64_t chunk_bytes,
                                         uint64_t index, uint64_t sources,
                                         const std::vector<int>& receivers, unsigned threads,
                                         const Server& server, const Device& device,
                                         uint64_t stream, const Sender& nccl,
                                         const std::vector<std::string>& unique_ids) {
  state::SourceOptions options;
  options.device = device.value_or(nullptr);
  options.stream = stream;
  options.nccl = nccl.value_or(nullptr);
  options.unique_ids = unique_ids;
  options.server = server.value_or(nullptr);
  options.generation = generation;
  options.regions = regions_of(regions);
  options.chunk_bytes = chunk_bytes;
  options.index = index;
  options.sources = sources;
  options.threads = threads;
  for (const int slot : receivers) options.receivers.push_back(exposure_of(worker, slot));
  options.keeper = worker.segment();
  return std::make_unique<StateSource>(std::move(options), exposure_of(worker, worker.slot()),
                                       worker.revocation());
}

std::unique_ptr<StateReceiver> make_receiver(
    const Worker& worker, uint64_t generation, const Regions& regions, uint64_t chunk_bytes,
    const std::vector<SourceAddress>& sources, unsigned threads, const std::string& method,
    const Shares& plan, std::optional<std::shared_ptr<transport::ArenaMappings>> mappings,
    const Network& fabric, const Device& device, const Nccl& nccl) {
  state::ReceiverOptions options;
  options.device = device.value_or(nullptr);
  options.nccl = nccl.value_or(nullptr);
  options.generation = generation;
  options.regions = regions_of(regions);
  options.chunk_bytes = chunk_bytes;
  options.threads = threads;
  options.method = method_of(method);
  if (mappings) options.mappings = std::move(*mappings);
  options.fabric = fabric.value_or(nullptr);
  options.exposure_area = exposure_of(worker, worker.slot());
  for (const SourceAddress& source : sources) {
    const bool here = source.remote.empty() && source.unreachable.empty() &&
                      (source.pid != 0 || source.nccl.empty());
    void* exposure = here ? exposure_of(worker, source.slot) : nullptr;
    options.sources.push_back({source.slot, source.pid, source.regions, exposure, source.arenas,
                               source.pace, source.remote, source.unreachable, source.device,
                               source.nccl, source.unique_id});
  }
  for (const auto& [source, begin, end] : plan) options.plan.push_back({source, begin, end});
  options.keeper = worker.segment();
  options.interrupted = [] {
    const py::gil_scoped_acquire acquire;
    return PyErr_CheckSignals() != 0;
  };
  return std::make_unique<StateReceiver>(std::move(options), worker.revocation());
}

void register_arena(py::module_& module) {
  using transport::Arena;
  using transport::ArenaMappings;
  py::class_<Arena>(module, "Arena",
                    "Memory for tensors that other processes of the node can map: a sealed memfd. "
                    "Alive while this object is.")
      .def(py::init([](uint64_t nbytes) {
             const py::gil_scoped_release release;
             auto made = Arena::create(nbytes);
             const py::gil_scoped_acquire acquire;
             return check(std::move(made));
           }),
           py::arg("nbytes"), "Raises OutOfSpace.")
      .def_property_readonly(
          "place",
          [](const Arena& self) {
            const transport::ArenaPlace place = self.place();
            return std::tuple(place.fd, place.inode, place.address, place.bytes);
          },
          "(fd, inode, address, bytes): how others find it.")
      .def_property_readonly("huge_nbytes", &Arena::huge_bytes, "Bytes that lie on huge pages.");
  py::class_<ArenaMappings, std::shared_ptr<ArenaMappings>>(
      module, "ArenaMappings", "Other processes' arenas, mapped read-only. Thread-safe.")
      .def(py::init<>())
      .def(
          "open",
          [](ArenaMappings& self, int pid, const Arenas::value_type& place) {
            Status status;
            {
              const py::gil_scoped_release release;
              status = self.open(pid, arena_of(place)).status();
            }
            check(status);
          },
          py::arg("pid"), py::arg("place"),
          "Maps an arena, all pages present, so that a pull need not. Raises PeerDead, "
          "Unsupported, MismatchError.")
      .def("keep_only", &ArenaMappings::keep_only, py::arg("inodes"), "Unmaps all others.")
      .def_property_readonly("mapped_nbytes", &ArenaMappings::mapped_bytes);
}

void register_source(py::module_& module) {
  py::class_<PublishStats>(module, "PublishStats", "What one source digested.")
      .def_readonly("bytes", &PublishStats::bytes)
      .def_readonly("chunks", &PublishStats::chunks)
      .def_readonly("seconds", &PublishStats::seconds);
  py::class_<StateSource>(module, "StateSource",
                          "The healthy side of a heal. Keep it, and the "
                          "regions, until the next commit.")
      .def(py::init(&make_source), py::arg("worker"), py::arg("generation"), py::arg("regions"),
           py::arg("chunk_bytes"), py::arg("index"), py::arg("sources"), py::arg("receivers"),
           py::arg("threads") = 1, py::arg("server") = std::nullopt,
           py::arg("device") = std::nullopt, py::arg("stream") = 0,
           py::arg("nccl_server") = std::nullopt,
           py::arg("unique_ids") = std::vector<std::string>(),
           "device, stream: where regions are device memory, and what computed them last.")
      .def(
          "publish",
          [](StateSource& self) {
            Result<PublishStats> result = Status(Code::kInvalid, "");
            {
              const py::gil_scoped_release release;
              result = self.publish();
            }
            return check(std::move(result));
          },
          "Digests this source's share, rings the receivers, returns. Raises "
          "RosterChanged.")
      .def(
          "remote_address",
          [](StateSource& self) {
            Result<std::string> result = Status();
            {
              const py::gil_scoped_release release;
              result = self.remote_address();
            }
            return py::bytes(check(std::move(result)));
          },
          "What receivers on other hosts need (of a source with a server). "
          "Before or after publish().")
      .def(
          "device_address",
          [](StateSource& self) { return py::bytes(check(self.device_address())); },
          "What receivers of this node need to read device memory by CUDA IPC. Raises "
          "Unsupported.")
      .def(
          "nccl_address", [](StateSource& self) { return py::bytes(check(self.nccl_address())); },
          "What receivers anywhere need to ask for device memory over NCCL, each with its unique "
          "id.")
      .def("close", &StateSource::close, py::call_guard<py::gil_scoped_release>(),
           "Ends the staging thread; receivers that need it lose this source. "
           "Twice is fine.");
}

void register_receiver(py::module_& module) {
  py::class_<SourceAddress>(module, "SourceAddress", "Where a source's state lies.")
      .def(py::init([](int slot, pid_t pid, const Regions& regions, const Arenas& arenas,
                       std::optional<std::pair<uint64_t, double>> pace, const py::bytes& remote,
                       const std::string& unreachable, const py::bytes& device,
                       const py::bytes& nccl, const py::bytes& unique_id) {
             SourceAddress made{slot,
                                pid,
                                regions_of(regions),
                                {},
                                transport::kUnpaced,
                                remote,
                                unreachable,
                                device,
                                nccl,
                                unique_id};
             for (const auto& place : arenas) made.arenas.push_back(arena_of(place));
             if (pace) made.pace = {pace->first, pace->second};
             return made;
           }),
           py::arg("slot"), py::arg("pid"), py::arg("regions"), py::arg("arenas") = Arenas(),
           py::arg("pace") = py::none(), py::arg("remote") = py::bytes(),
           py::arg("unreachable") = "", py::arg("device") = py::bytes(),
           py::arg("nccl") = py::bytes(), py::arg("unique_id") = py::bytes(),
           "arenas: their `place`s. pace, for tests: (bytes, bytes/s) after so many bytes it gives "
           "so many a second; 0: it is gone. remote: the remote_address() of a source on another "
           "host; then pid and arenas are not looked at. unreachable: why it cannot be read. "
           "device, "
           "nccl: its device_address() and nccl_address(), tried in this order, the latter with "
           "this "
           "receiver's unique_id; pid 0: it is on another host.")
      .def_readonly("slot", &SourceAddress::slot)
      .def_readonly("pid", &SourceAddress::pid);
  py::class_<PullStats>(module, "PullStats", "What one pull did.")
      .def_readonly("bytes", &PullStats::bytes)
      .def_readonly("seconds", &PullStats::seconds)
      .def_readonly("chunks", &PullStats::chunks)
      .def_readonly("refetched", &PullStats::refetched)
      .def_readonly("bytes_by_source", &PullStats::bytes_by_source)
      .def_readonly("moved", &PullStats::moved)
      .def_readonly("reread", &PullStats::reread)
      .def_readonly("method", &PullStats::method)
      .def_readonly("notes", &PullStats::notes);
  py::class_<StateReceiver>(module, "StateReceiver", "The newcomer's side of a heal.")
      .def(py::init(&make_receiver), py::arg("worker"), py::arg("generation"), py::arg("regions"),
           py::arg("chunk_bytes"), py::arg("sources"), py::arg("threads") = 2,
           py::arg("method") = "probe", py::arg("plan") = Shares(),
           py::arg("mappings") = py::none(), py::arg("fabric") = std::nullopt,
           py::arg("device") = std::nullopt, py::arg("nccl") = std::nullopt,
           "plan: (index of the source, begin, end) in bytes, ascending; empty: equal parts.")
      .def(
          "pull",
          [](StateReceiver& self, double timeout_s) {
            Result<PullStats> result = Status(Code::kInvalid, "");
            {
              const py::gil_scoped_release release;
              result = self.pull(deadline_in(timeout_s));
            }
            if (PyErr_Occurred() != nullptr) throw py::error_already_set();
            return check(std::move(result));
          },
          py::arg("timeout_s"),
          "Blocks until all bytes arrived and are proved. Raises "
          "RosterChanged, DeadlineExceeded, "
          "MismatchError, CorruptData, PeerDead.")
      .def_property_readonly("progress", &StateReceiver::progress_bytes,
                             "Bytes read so far; from any thread.");
}

}  // namespace

void register_state(py::module_& module) {
  module.def(
      "use_huge_pages",
      [](const Regions& pairs) {
        const auto regions = regions_of(pairs);
        const py::gil_scoped_release release;
        return transport::use_huge_pages(regions);
      },
      py::arg("regions"),
      "Puts [(address, nbytes)] on huge pages: heals are twice as fast. "
      "Returns the bytes on them.");
  module.def(
      "digest_regions",
      [](const Regions& pairs) {
        Digest128 digest;
        {
          const auto regions = regions_of(pairs);
          const py::gil_scoped_release release;
          Digester digester;
          for (const transport::Region& region : regions) {
            digester.update(reinterpret_cast<const void*>(region.address), region.bytes);
          }
          digest = digester.finish();
        }
        std::string bytes;
        for (const uint32_t lane : digest) {
          for (int shift = 0; shift < 32; shift += 8) {
            bytes.push_back(static_cast<char>(lane >> shift));
          }
        }
        return py::bytes(bytes);
      },
      py::arg("regions"), "digest128 of [(address, nbytes)], one after the other.");
  register_arena(module);
  register_source(module);
  register_receiver(module);
}

}  // namespace hpcore::bind
