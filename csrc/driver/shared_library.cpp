#include "driver/shared_library.hpp"

#include <dlfcn.h>
#include <link.h>

namespace hpcore::driver {
namespace {

constexpr int kFlags = RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE;
const std::string kLoaded = "loaded:";

std::string path_of(void* handle, const std::string& place) {
  link_map* map = nullptr;
  if (dlinfo(handle, RTLD_DI_LINKMAP, &map) != 0 || map == nullptr || map->l_name[0] == '\0') {
    return place;
  }
  return map->l_name;
}

}  // namespace

Result<SharedLibrary> SharedLibrary::open(const std::string& what,
                                          const std::vector<std::string>& places,
                                          const std::string& way_out) {
  std::string tried;
  for (const std::string& place : places) {
    const bool loaded_only = place.rfind(kLoaded, 0) == 0;
    void* handle = loaded_only ? dlopen(place.c_str() + kLoaded.size(), kFlags | RTLD_NOLOAD)
                               : dlopen(place.c_str(), kFlags);
    if (handle != nullptr) return SharedLibrary(handle, path_of(handle, place));
    const char* reason = dlerror();
    if (loaded_only) continue;
    tried += (tried.empty() ? "" : "; ") + std::string(reason == nullptr ? place : reason);
  }
  return Status(Code::kNotFound, "no " + what + " found. Tried: " + tried + ". " + way_out);
}

void* SharedLibrary::find(const char* name) const { return dlsym(handle_, name); }

}  // namespace hpcore::driver
