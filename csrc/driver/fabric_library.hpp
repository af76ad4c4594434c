// Purpose: libfabric, loaded at run time. Looked for, in this order: the path asked for (at the
// edge: $HPCORE_LIBFABRIC), Amazon's EFA installer (/opt/amazon/efa/lib, lib64), the system's
// loader. Versions 1.17 to 2.x: symbols are taken with the version of 1.3's structures, which all
// of them still export.
// Threads: thread-safe once loaded. Ownership: never unloaded (it starts threads and exit
// handlers), so that a table may be kept by value. Loading sets environment variables that its EFA
// provider reads, where the user has not set them: see apply_provider_environment().
#pragma once

#include <string>
#include <vector>

#include "base/status.hpp"
#include "driver/fabric_abi.hpp"

namespace hpcore::driver {

struct FabricLibrary {
  std::string path;      // where it was found
  uint32_t version = 0;  // major << 16 | minor
  int (*getinfo)(uint32_t version, const char* node, const char* service, uint64_t flags,
                 const fi::Info* hints, fi::Info** info) = nullptr;
  void (*freeinfo)(fi::Info*) = nullptr;
  fi::Info* (*dupinfo)(const fi::Info*) = nullptr;
  int (*fabric)(fi::FabricAttr*, fi::Fabric**, void* context) = nullptr;
  const char* (*strerror)(int error_number) = nullptr;

  [[nodiscard]] std::string version_text() const;
};

constexpr uint32_t kOldestFabricVersion = fi::version(1, 17);

// Places that are tried, in order. A path that is asked for is the only one.
std::vector<std::string> fabric_library_places(const std::string& asked_path);

// kNotFound: names the places. kUnsupported: it is too old, or lacks a function.
Result<FabricLibrary> load_fabric_library(const std::string& asked_path);

// What EFA's users found necessary. No shared memory within a node (its device copies go through
// the GPU's default stream and may wait for a collective that waits for us), reads by the device
// rather than emulated by messages, safe to fork. And what everybody needs where the library comes
// with the PSM providers: these would take over the process's handlers of SIGTERM, SIGSEGV and
// more, print a backtrace and run exit handlers. Only sets what is not set.
void apply_provider_environment();

}  // namespace hpcore::driver
