// Python names of CUDA devices and of the libraries in driver/ that are loaded at run time.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bind/errors.hpp"
#include "bind/regions.hpp"
#include "bind/register.hpp"
#include "bind/remote_memory.hpp"
#include "driver/nccl_library.hpp"
#include "transport/cuda_device.hpp"

namespace py = pybind11;

namespace hpcore::bind {
namespace {

using driver::NcclLibrary;
using transport::CudaBuffer;
using transport::CudaDevice;

void register_nccl_library(py::module_& module) {
  py::class_<NcclHandle, std::shared_ptr<NcclHandle>>(
      module, "NcclLibrary", "libnccl, loaded at run time. Raises NotFound, Unsupported.")
      .def(py::init([](const std::string& path, const std::vector<std::string>& known,
                       double setup_limit_s, double answer_limit_s) {
             Result<NcclLibrary> result = Status();
             {
               const py::gil_scoped_release release;
               result = driver::load_nccl_library(path, known);
             }
             auto made = std::make_shared<NcclHandle>();
             made->library = check(std::move(result));
             made->options.setup_limit_s = setup_limit_s;
             made->options.lane.answer_limit_s = answer_limit_s;
             return made;
           }),
           py::arg("path") = "", py::arg("known") = std::vector<std::string>(), py::kw_only(),
           py::arg("setup_limit_s") = 10.0, py::arg("answer_limit_s") = 2.0,
           "`path` is the only place looked at if it is given; `known` are places beside the "
           "loader's own. The limits are those of the links that a StateReceiver opens with it.")
      .def_property_readonly("path", [](const NcclHandle& self) { return self.library.path; })
      .def_property_readonly("version",
                             [](const NcclHandle& self) { return self.library.version_text(); })
      .def_property_readonly(
          "offers",
          [](const NcclHandle& self) {
            std::vector<std::string> names;
            if (self.library.comm_init_rank_scalable != nullptr) names.emplace_back("scalable");
            if (self.library.comm_shrink != nullptr) names.emplace_back("shrink");
            if (self.library.comm_grow != nullptr) names.emplace_back("grow");
            return names;
          },
          "What later versions brought: scalable, shrink, grow.")
      .def(
          "unique_id",
          [](const NcclHandle& self) {
            driver::nccl::UniqueId id{};
            const driver::nccl::Result result = self.library.get_unique_id(&id);
            if (result != driver::nccl::kSuccess) {
              check(Status(Code::kSystem,
                           "making a unique id: " + self.library.error_text(result, nullptr)));
            }
            return py::bytes(id.internal, sizeof id.internal);
          },
          "A new one: 128 bytes, for one communicator.");
}

void register_cuda_device(py::module_& module) {
  py::class_<CudaDevice, std::shared_ptr<CudaDevice>>(
      module, "CudaDevice", "A CUDA device and its primary context. Raises NotFound, Unsupported.")
      .def(py::init([](const std::string& library, int ordinal, const std::string& uuid) {
             Result<std::shared_ptr<CudaDevice>> result = Status();
             {
               const py::gil_scoped_release release;
               result = CudaDevice::open(library, ordinal, uuid);
             }
             return check(std::move(result));
           }),
           py::kw_only(), py::arg("library") = "", py::arg("ordinal") = 0, py::arg("uuid") = "")
      .def_property_readonly("uuid", &CudaDevice::uuid)
      .def_property_readonly("name", &CudaDevice::name)
      .def_property_readonly("ordinal", &CudaDevice::ordinal)
      .def_property_readonly("driver_version",
                             [](const CudaDevice& self) { return self.library().version_text(); })
      .def(
          "holds",
          [](const CudaDevice& self, uint64_t address) { return self.holds({address, 1}); },
          py::arg("address"), "Whether that is device memory.");
  py::class_<CudaBuffer>(module, "CudaBuffer", "Device memory of its own, for tests and benches.")
      .def(py::init([](std::shared_ptr<CudaDevice> device, uint64_t nbytes) {
             return std::make_unique<CudaBuffer>(
                 check(CudaBuffer::create(std::move(device), CudaBuffer::Kind::kDevice, nbytes)));
           }),
           py::arg("device"), py::arg("nbytes"))
      .def_property_readonly("address", &CudaBuffer::address)
      .def_property_readonly("nbytes", &CudaBuffer::bytes);
}

}  // namespace

void register_device(py::module_& module) {
  register_nccl_library(module);
  register_cuda_device(module);
}

}  // namespace hpcore::bind
