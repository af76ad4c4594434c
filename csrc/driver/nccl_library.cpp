#include "driver/nccl_library.hpp"

#include <algorithm>

#include "driver/shared_library.hpp"

namespace hpcore::driver {
namespace {

std::string text_of(int version) {
  // Up to 2.8 the code was major * 1000 + minor * 100 + patch.
  const int major = version < 10000 ? version / 1000 : version / 10000;
  const int minor = version < 10000 ? version % 1000 / 100 : version % 10000 / 100;
  return std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(version % 100);
}

void take_functions(SharedLibrary* from, NcclLibrary* to) {
  from->take("ncclGetUniqueId", &to->get_unique_id);
  from->take("ncclCommInitRankConfig", &to->comm_init_rank_config);
  from->take("ncclCommGetAsyncError", &to->comm_get_async_error);
  from->take("ncclCommFinalize", &to->comm_finalize);
  from->take("ncclCommDestroy", &to->comm_destroy);
  from->take("ncclCommAbort", &to->comm_abort);
  from->take("ncclCommCount", &to->comm_count);
  from->take("ncclCommUserRank", &to->comm_user_rank);
  from->take("ncclGroupStart", &to->group_start);
  from->take("ncclGroupEnd", &to->group_end);
  from->take("ncclSend", &to->send);
  from->take("ncclRecv", &to->recv);
  from->take("ncclGetErrorString", &to->get_error_string);
  from->take("ncclGetLastError", &to->get_last_error);
  from->take_optional("ncclCommInitRankScalable", &to->comm_init_rank_scalable);
  from->take_optional("ncclCommShrink", &to->comm_shrink);
  from->take_optional("ncclCommGetUniqueId", &to->comm_get_unique_id);
  from->take_optional("ncclCommGrow", &to->comm_grow);
}

}  // namespace

std::string NcclLibrary::version_text() const { return text_of(version); }

nccl::Config NcclLibrary::config() const {
  nccl::Config config;
  config.version = std::min(config.version, static_cast<unsigned>(version));
  config.blocking = 0;
  return config;
}

std::string NcclLibrary::error_text(nccl::Result result, nccl::Comm* comm) const {
  std::string text = get_error_string(result);
  const char* last = get_last_error(comm);
  if (last != nullptr && last[0] != '\0') text += " (" + std::string(last) + ")";
  return text + ", NCCL " + version_text();
}

std::vector<std::string> nccl_library_places(const std::string& asked_path,
                                             const std::vector<std::string>& known) {
  if (!asked_path.empty()) return {asked_path};
  std::vector<std::string> places{"loaded:libnccl.so.2"};
  places.insert(places.end(), known.begin(), known.end());
  places.emplace_back("libnccl.so.2");
  return places;
}

Result<NcclLibrary> load_nccl_library(const std::string& asked_path,
                                      const std::vector<std::string>& known) {
  Result<SharedLibrary> opened =
      SharedLibrary::open("libnccl", nccl_library_places(asked_path, known),
                          "Install it (pip: nvidia-nccl-cu12, as torch for CUDA does; Debian: "
                          "libnccl2) or name the file with HPCORE_NCCL");
  if (!opened.ok()) return opened.status();
  SharedLibrary& from = opened.value();
  NcclLibrary library;
  library.path = from.path();
  nccl::Result (*get_version)(int*) = nullptr;
  if (!from.take("ncclGetVersion", &get_version) ||
      get_version(&library.version) != nccl::kSuccess) {
    return Status(Code::kUnsupported, from.path() + " is no NCCL: it has no ncclGetVersion");
  }
  if (library.version < kOldestNcclVersion) {
    return Status(Code::kUnsupported, "NCCL in " + from.path() + " is version " +
                                          text_of(library.version) + "; needed is " +
                                          text_of(kOldestNcclVersion) +
                                          " or later. Name another with HPCORE_NCCL");
  }
  take_functions(&from, &library);
  if (!from.missing().empty()) {
    return Status(Code::kUnsupported, "NCCL " + text_of(library.version) + " in " + from.path() +
                                          " lacks " + from.missing() +
                                          ". Name another with HPCORE_NCCL");
  }
  return library;
}

}  // namespace hpcore::driver
