// Python names of the transports of device memory: CUDA IPC within a node, NCCL anywhere.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "bind/errors.hpp"
#include "bind/regions.hpp"
#include "bind/remote_memory.hpp"
#include "bind/waiting.hpp"
#include "transport/cuda_ipc.hpp"
#include "transport/nccl_memory.hpp"
#include "transport/nccl_server.hpp"

namespace py = pybind11;

namespace hpcore::bind {
namespace {

using transport::CudaDevice;
using transport::CudaIpcExport;
using transport::CudaIpcMemory;
using transport::LaneOptions;
using transport::NcclMemory;
using transport::NcclOptions;
using transport::NcclServer;
using transport::RegionMap;

LaneOptions lane_of(uint64_t piece_bytes, unsigned slots, double answer_limit_s) {
  LaneOptions lane;
  if (piece_bytes != 0) lane.piece_bytes = piece_bytes;
  if (slots != 0) lane.slots = slots;
  lane.answer_limit_s = answer_limit_s;
  return lane;
}

template <typename Call>
auto without_gil(const Call& call) {
  const py::gil_scoped_release release;
  return call();
}

std::unique_ptr<Memory> held(const Regions& expected) {
  auto memory = std::make_unique<Memory>();
  memory->regions = std::make_unique<RegionMap>(regions_of(expected));
  return memory;
}

std::unique_ptr<Memory> open_ipc(const std::shared_ptr<CudaDevice>& device,
                                 const py::bytes& address, uint64_t generation,
                                 const Regions& expected, uint64_t piece_bytes, unsigned slots,
                                 double answer_limit_s) {
  auto memory = held(expected);
  const std::string text(address);
  memory->reader = check(without_gil([&] {
    return CudaIpcMemory::open(device, text, generation, *memory->regions,
                               lane_of(piece_bytes, slots, answer_limit_s), nullptr);
  }));
  return memory;
}

std::unique_ptr<Memory> open_nccl(const std::shared_ptr<CudaDevice>& device,
                                  const std::shared_ptr<NcclHandle>& nccl, const py::bytes& address,
                                  uint64_t generation, const Regions& expected,
                                  const py::bytes& unique_id, unsigned slots, double answer_limit_s,
                                  double setup_limit_s) {
  auto memory = held(expected);
  const std::string text(address);
  const std::string id(unique_id);
  NcclOptions options;
  options.lane = lane_of(0, slots, answer_limit_s);
  options.setup_limit_s = setup_limit_s;
  memory->reader = check(without_gil([&] {
    return NcclMemory::open(device, nccl->library, text, generation, *memory->regions, id, options);
  }));
  return memory;
}

std::unique_ptr<NcclServer> open_server(const std::shared_ptr<CudaDevice>& device,
                                        const std::shared_ptr<NcclHandle>& nccl,
                                        const std::string& host, uint64_t piece_bytes,
                                        unsigned slots, double setup_limit_s) {
  NcclOptions options;
  options.lane = lane_of(piece_bytes, slots, options.lane.answer_limit_s);
  options.host = host;
  options.setup_limit_s = setup_limit_s;
  return check(NcclServer::open(device, nccl->library, options));
}

void register_exports(py::module_& module) {
  py::class_<CudaIpcExport>(module, "CudaIpcExport",
                            "Lets processes of this node read regions of device memory.")
      .def(py::init([](const std::shared_ptr<CudaDevice>& device, const Regions& regions,
                       uint64_t generation, uint64_t stream) {
             return check(
                 CudaIpcExport::open(device, RegionMap(regions_of(regions)), generation, stream));
           }),
           py::arg("device"), py::arg("regions"), py::arg("generation") = 0, py::arg("stream") = 0,
           "`stream`: the handle of the one that computed the state last. Raises Unsupported.")
      .def_property_readonly(
          "address", [](const CudaIpcExport& self) { return py::bytes(self.address()); },
          "What a reader needs; good while this object lives.");
  py::class_<NcclServer, std::shared_ptr<NcclServer>>(
      module, "NcclServer", "Sends device memory to those who ask, over NCCL.")
      .def(py::init([](const std::shared_ptr<CudaDevice>& device,
                       const std::shared_ptr<NcclHandle>& nccl, const std::string& host,
                       uint64_t piece_bytes, unsigned slots, double setup_limit_s) {
             return std::shared_ptr<NcclServer>(
                 open_server(device, nccl, host, piece_bytes, slots, setup_limit_s));
           }),
           py::arg("device"), py::arg("nccl"), py::kw_only(), py::arg("host") = "",
           py::arg("piece_bytes") = 0, py::arg("slots") = 0, py::arg("setup_limit_s") = 10.0,
           "`host`: the address of this host that others reach; empty: receivers are here.")
      .def(
          "expose",
          [](NcclServer& self, const Regions& regions, uint64_t generation,
             const std::vector<std::string>& ids, uint64_t stream) {
            NcclServer::Exposed exposed;
            exposed.regions = RegionMap(regions_of(regions));
            exposed.generation = generation;
            exposed.ids = ids;
            exposed.stream = stream;
            return py::bytes(check(self.expose(std::move(exposed))));
          },
          py::arg("regions"), py::arg("generation"), py::arg("ids"), py::arg("stream") = 0,
          "The address that receivers need, each with one of the unique ids. The memory must stay "
          "until withdraw() or close().")
      .def("withdraw", &NcclServer::withdraw, py::arg("generation"),
           py::call_guard<py::gil_scoped_release>(), "Ends the links of a generation.")
      .def("close", &NcclServer::close, py::call_guard<py::gil_scoped_release>(),
           "Ends all links. Twice is fine.");
}

}  // namespace

void register_device_memory(py::module_& module) {
  register_exports(module);
  py::class_<Memory>(module.attr("RemoteMemory"))
      .def_static("over_cuda_ipc", &open_ipc, py::arg("device"), py::arg("address"),
                  py::arg("generation"), py::arg("regions"), py::arg("piece_bytes") = 0,
                  py::arg("slots") = 0, py::arg("answer_limit_s") = 2.0,
                  "Device memory of a process of this node. Raises Unsupported, PeerDead.")
      .def_static("over_nccl", &open_nccl, py::arg("device"), py::arg("nccl"), py::arg("address"),
                  py::arg("generation"), py::arg("regions"), py::arg("unique_id"),
                  py::arg("slots") = 0, py::arg("answer_limit_s") = 2.0,
                  py::arg("setup_limit_s") = 10.0,
                  "Blocks until NCCL is up. Raises DeadlineExceeded, PeerDead, MismatchError.")
      .def(
          "read_digested",
          [](Memory& self, uint64_t offset, uint64_t bytes, const Regions& into, double timeout_s) {
            const RegionMap map(regions_of(into));
            const TimePoint deadline = deadline_in(timeout_s);
            Digester digester;
            check(without_gil([&] {
              return self.reader->read_digested(offset, bytes, map, &digester, [&] {
                return self.aborted.load() || Clock::now() >= deadline;
              });
            }));
            const Digest128 digest = digester.finish();
            return py::bytes(reinterpret_cast<const char*>(digest.data()), sizeof digest);
          },
          py::arg("offset"), py::arg("bytes"), py::arg("into"), py::arg("timeout_s") = 30.0,
          "As read(), and the digest of what arrived: equal to digest128 of the bytes.")
      .def(
          "digest",
          [](Memory& self, uint64_t offset, uint64_t bytes, double timeout_s) {
            const TimePoint deadline = deadline_in(timeout_s);
            Digester digester;
            check(without_gil([&] {
              return self.reader->digest(offset, bytes, &digester, [&] {
                return self.aborted.load() || Clock::now() >= deadline;
              });
            }));
            const Digest128 digest = digester.finish();
            return py::bytes(reinterpret_cast<const char*>(digest.data()), sizeof digest);
          },
          py::arg("offset"), py::arg("bytes"), py::arg("timeout_s") = 30.0,
          "Of the other process's bytes; nothing of this process's is written but staging.");
}

}  // namespace hpcore::bind
