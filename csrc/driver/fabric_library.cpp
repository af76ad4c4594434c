#include "driver/fabric_library.hpp"

#include <dlfcn.h>

#include <cstdlib>

namespace hpcore::driver {
namespace {

std::string text_of(uint32_t version) {
  return std::to_string(version >> 16) + "." + std::to_string(version & 0xffff);
}

// The structures changed at FABRIC_1.4 and later only by appending: 1.3's are the first with nic.
template <typename Function>
bool take(void* handle, const char* name, const char* version, Function* out) {
  void* found = dlvsym(handle, name, version);
  if (found == nullptr) found = dlsym(handle, name);
  *out = reinterpret_cast<Function>(found);
  return found != nullptr;
}

Result<FabricLibrary> table_of(void* handle, const std::string& place) {
  FabricLibrary library;
  library.path = place;
  uint32_t (*version)() = nullptr;
  if (!take(handle, "fi_version", "FABRIC_1.0", &version)) {
    return Status(Code::kUnsupported, place + " is no libfabric: it has no fi_version");
  }
  library.version = version();
  if (library.version < kOldestFabricVersion) {
    return Status(Code::kUnsupported, "libfabric in " + place + " is version " +
                                          text_of(library.version) + "; needed is " +
                                          text_of(kOldestFabricVersion) +
                                          " or later. Name another with HPCORE_LIBFABRIC");
  }
  const bool whole = take(handle, "fi_getinfo", "FABRIC_1.3", &library.getinfo) &&
                     take(handle, "fi_freeinfo", "FABRIC_1.3", &library.freeinfo) &&
                     take(handle, "fi_dupinfo", "FABRIC_1.3", &library.dupinfo) &&
                     take(handle, "fi_fabric", "FABRIC_1.1", &library.fabric) &&
                     take(handle, "fi_strerror", "FABRIC_1.0", &library.strerror);
  if (!whole) {
    return Status(Code::kUnsupported, "libfabric " + text_of(library.version) + " in " + place +
                                          " lacks a function: " + std::string(dlerror()));
  }
  return library;
}

}  // namespace

std::string FabricLibrary::version_text() const { return text_of(version); }

std::vector<std::string> fabric_library_places(const std::string& asked_path) {
  if (!asked_path.empty()) return {asked_path};
  return {"/opt/amazon/efa/lib/libfabric.so.1", "/opt/amazon/efa/lib64/libfabric.so.1",
          "libfabric.so.1"};
}

void apply_provider_environment() {
  setenv("FI_EFA_ENABLE_SHM_TRANSFER", "0", 0);
  setenv("FI_EFA_USE_DEVICE_RDMA", "1", 0);
  setenv("FI_EFA_FORK_SAFE", "1", 0);
  setenv("RDMAV_FORK_SAFE", "1", 0);
  setenv("IPATH_NO_BACKTRACE", "1", 0);
  setenv("HFI_NO_BACKTRACE", "1", 0);
}

Result<FabricLibrary> load_fabric_library(const std::string& asked_path) {
  apply_provider_environment();
  std::string tried;
  for (const std::string& place : fabric_library_places(asked_path)) {
    // Never closed: RTLD_NODELETE says so to the loader as well.
    void* handle = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (handle != nullptr) return table_of(handle, place);
    const char* reason = dlerror();
    tried += (tried.empty() ? "" : "; ") + std::string(reason == nullptr ? place : reason);
  }
  return Status(Code::kNotFound,
                "no libfabric found. Tried: " + tried +
                    ". Install it (Debian: libfabric1; AWS: the EFA installer) or name the file "
                    "with HPCORE_LIBFABRIC");
}

}  // namespace hpcore::driver
