// Python names of base/digest.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "base/digest.hpp"
#include "bind/errors.hpp"
#include "bind/register.hpp"

namespace py = pybind11;

namespace hpcore::bind {
namespace {

py::bytes as_bytes(const Digest128& digest) {
  std::string out;
  for (const uint32_t lane : digest) {
    for (int shift = 0; shift < 32; shift += 8) out.push_back(static_cast<char>(lane >> shift));
  }
  return out;
}

const DigestKernel& kernel_of(const std::string& name) {
  if (name.empty()) return fastest_digest_kernel();
  const DigestKernel* kernel = digest_kernel(name);
  if (kernel == nullptr) {
    check(
        Status(Code::kInvalid, "no digest code \"" + name + "\" on this CPU: see digest_codes()"));
  }
  return *kernel;
}

py::bytes digest_of(const py::buffer& buffer, const std::string& code) {
  const DigestKernel& kernel = kernel_of(code);
  const py::buffer_info info = buffer.request();
  if (!PyBuffer_IsContiguous(info.view(), 'C')) {
    check(Status(Code::kInvalid, "digest128 needs a contiguous buffer; make a copy first"));
  }
  const auto bytes = static_cast<size_t>(info.size) * static_cast<size_t>(info.itemsize);
  Digest128 digest;
  {
    const py::gil_scoped_release release;
    digest = digest128(info.ptr, bytes, kernel);
  }
  return as_bytes(digest);
}

py::bytes copy_of(const py::buffer& into, const py::buffer& from, const std::string& code) {
  const py::buffer_info to = into.request(true);
  const py::buffer_info source = from.request();
  const auto bytes = static_cast<size_t>(source.size) * static_cast<size_t>(source.itemsize);
  if (!PyBuffer_IsContiguous(to.view(), 'C') || !PyBuffer_IsContiguous(source.view(), 'C') ||
      static_cast<size_t>(to.size) * static_cast<size_t>(to.itemsize) != bytes) {
    check(Status(Code::kInvalid, "copy_digested needs two contiguous buffers of one size"));
  }
  Digester digester(kernel_of(code));
  {
    const py::gil_scoped_release release;
    digester.copy(to.ptr, source.ptr, bytes);
  }
  return as_bytes(digester.finish());
}

}  // namespace

void register_digest(py::module_& module) {
  module.def("digest128", &digest_of, py::arg("buffer"), py::arg("code") = "",
             "16 bytes: four CRC-32C lanes, little-endian. Detects accidents, "
             "not attackers.");
  module.def(
      "digest_codes",
      [] {
        std::vector<std::string> names;
        for (const DigestKernel& kernel : digest_kernels()) names.emplace_back(kernel.name);
        return names;
      },
      "What computes digests on this CPU, the fastest first; `code` of the others names one. All "
      "give the same.");
  module.def("copy_digested", &copy_of, py::arg("into"), py::arg("buffer"), py::arg("code") = "",
             "Copies past the caches and returns digest128 of what was copied, in one pass.");
}

}  // namespace hpcore::bind
