// Python names of base/digest and of the state room.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "base/digest.hpp"
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

py::bytes digest_of(const py::buffer& buffer, bool portable) {
  const py::buffer_info info = buffer.request();
  if (!PyBuffer_IsContiguous(info.view(), 'C')) {
    check(Status(Code::kInvalid, "digest128 needs a contiguous buffer; make a copy first"));
  }
  const auto bytes = static_cast<size_t>(info.size) * static_cast<size_t>(info.itemsize);
  Digest128 digest;
  {
    const py::gil_scoped_release release;
    digest = digest128(info.ptr, bytes, portable ? DigestCode::kPortable : DigestCode::kFastest);
  }
  std::string out;
  for (const uint32_t lane : digest) {
    for (int shift = 0; shift < 32; shift += 8) out.push_back(static_cast<char>(lane >> shift));
  }
  return py::bytes(out);
}

void register_digest(py::module_& module) {
  module.def("digest128", &digest_of, py::arg("buffer"), py::arg("portable") = false,
             "16 bytes: four CRC-32C lanes, little-endian. Detects accidents, "
             "not attackers.");
  module.def("digest_code", &digest_code_name, "sse4.2, armv8-crc or portable.");
}

using roster::Worker;
using state::PublishStats;
using state::PullStats;
using state::StateReceiver;
using state::StateSource;

struct SourceAddress {
  int slot;
  pid_t pid;
  std::vector<transport::Region> regions;
};

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
                                         const std::vector<int>& receivers, unsigned threads) {
  state::SourceOptions options;
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

std::unique_ptr<StateReceiver> make_receiver(const Worker& worker, uint64_t generation,
                                             const Regions& regions, uint64_t chunk_bytes,
                                             const std::vector<SourceAddress>& sources,
                                             unsigned threads, const std::string& method) {
  state::ReceiverOptions options;
  options.generation = generation;
  options.regions = regions_of(regions);
  options.chunk_bytes = chunk_bytes;
  options.threads = threads;
  options.method = method_of(method);
  options.exposure_area = exposure_of(worker, worker.slot());
  for (const SourceAddress& source : sources) {
    options.sources.push_back(
        {source.slot, source.pid, source.regions, exposure_of(worker, source.slot)});
  }
  options.keeper = worker.segment();
  options.interrupted = [] {
    const py::gil_scoped_acquire acquire;
    return PyErr_CheckSignals() != 0;
  };
  return std::make_unique<StateReceiver>(std::move(options), worker.revocation());
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
           py::arg("threads") = 1)
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
      .def("close", &StateSource::close, py::call_guard<py::gil_scoped_release>(),
           "Ends the staging thread; receivers that need it lose this source. "
           "Twice is fine.");
}

void register_receiver(py::module_& module) {
  py::class_<SourceAddress>(module, "SourceAddress", "Where a source's state lies.")
      .def(py::init([](int slot, pid_t pid, const Regions& regions) {
             return SourceAddress{slot, pid, regions_of(regions)};
           }),
           py::arg("slot"), py::arg("pid"), py::arg("regions"))
      .def_readonly("slot", &SourceAddress::slot)
      .def_readonly("pid", &SourceAddress::pid);
  py::class_<PullStats>(module, "PullStats", "What one pull did.")
      .def_readonly("bytes", &PullStats::bytes)
      .def_readonly("seconds", &PullStats::seconds)
      .def_readonly("chunks", &PullStats::chunks)
      .def_readonly("refetched", &PullStats::refetched)
      .def_readonly("bytes_by_source", &PullStats::bytes_by_source)
      .def_readonly("method", &PullStats::method);
  py::class_<StateReceiver>(module, "StateReceiver", "The newcomer's side of a heal.")
      .def(py::init(&make_receiver), py::arg("worker"), py::arg("generation"), py::arg("regions"),
           py::arg("chunk_bytes"), py::arg("sources"), py::arg("threads") = 2,
           py::arg("method") = "probe")
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
  register_digest(module);
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
  register_source(module);
  register_receiver(module);
}

}  // namespace hpcore::bind
