// Python names of base/digest and of the state room.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "base/digest.hpp"
#include "bind/errors.hpp"
#include "bind/register.hpp"
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
             "16 bytes: four CRC-32C lanes, little-endian. Detects accidents, not attackers.");
  module.def("digest_code", &digest_code_name, "sse4.2, armv8-crc or portable.");
}

using Regions = std::vector<std::pair<uint64_t, uint64_t>>;

std::vector<transport::Region> regions_of(const Regions& pairs) {
  std::vector<transport::Region> regions;
  regions.reserve(pairs.size());
  for (const auto& [address, bytes] : pairs) regions.push_back({address, bytes});
  return regions;
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
      "Puts [(address, nbytes)] on huge pages: heals are twice as fast. Returns the bytes on "
      "them.");
}

}  // namespace hpcore::bind
