// Purpose: libnccl, loaded at run time. Looked for, in this order: the path asked for (at the edge:
// $HPCORE_NCCL), the one that this process has loaded already (torch's: two copies of NCCL in a
// process would each start proxies of their own), the places the caller knows (the nvidia-nccl
// wheel beside torch), the system's loader. 2.14, the first with nonblocking communicators, or
// later; what came afterwards is null in older ones, and asked for by `require`.
// Threads: thread-safe once loaded; calls on one communicator must not overlap.
// Ownership: never unloaded (it starts threads), so that a table may be kept by value.
#pragma once

#include <string>
#include <vector>

#include "base/status.hpp"
#include "driver/nccl_abi.hpp"

namespace hpcore::driver {

struct NcclLibrary {
  std::string path;  // where it was found
  int version = 0;   // nccl::version()

  nccl::Result (*get_unique_id)(nccl::UniqueId*) = nullptr;
  nccl::Result (*comm_init_rank_config)(nccl::Comm**, int ranks, nccl::UniqueId, int rank,
                                        nccl::Config*) = nullptr;
  nccl::Result (*comm_get_async_error)(nccl::Comm*, nccl::Result*) = nullptr;
  nccl::Result (*comm_finalize)(nccl::Comm*) = nullptr;
  nccl::Result (*comm_destroy)(nccl::Comm*) = nullptr;
  nccl::Result (*comm_abort)(nccl::Comm*) = nullptr;
  nccl::Result (*comm_count)(const nccl::Comm*, int*) = nullptr;
  nccl::Result (*comm_user_rank)(const nccl::Comm*, int*) = nullptr;
  nccl::Result (*group_start)() = nullptr;
  nccl::Result (*group_end)() = nullptr;
  nccl::Result (*send)(const void*, size_t count, int type, int peer, nccl::Comm*,
                       nccl::Stream*) = nullptr;
  nccl::Result (*recv)(void*, size_t count, int type, int peer, nccl::Comm*,
                       nccl::Stream*) = nullptr;
  const char* (*get_error_string)(nccl::Result) = nullptr;
  const char* (*get_last_error)(nccl::Comm*) = nullptr;

  // Null where the library is older:
  nccl::Result (*comm_init_rank_scalable)(nccl::Comm**, int ranks, int rank, int ids,
                                          nccl::UniqueId*, nccl::Config*) = nullptr;  // 2.23
  nccl::Result (*comm_shrink)(nccl::Comm*, int* excluded, int count, nccl::Comm**, nccl::Config*,
                              int flags) = nullptr;                            // 2.27
  nccl::Result (*comm_get_unique_id)(nccl::Comm*, nccl::UniqueId*) = nullptr;  // 2.29
  nccl::Result (*comm_grow)(nccl::Comm*, int ranks, const nccl::UniqueId*, int rank, nccl::Comm**,
                            nccl::Config*) = nullptr;  // 2.29

  [[nodiscard]] std::string version_text() const;
  // A configuration that this version of the library accepts: nonblocking, all else its default.
  [[nodiscard]] nccl::Config config() const;
  // NCCL's own words for a result, with what it noted last; `comm` may be null.
  [[nodiscard]] std::string error_text(nccl::Result result, nccl::Comm* comm) const;
};

constexpr int kOldestNcclVersion = nccl::version(2, 14, 0);

// Places that are tried, in order. A path that is asked for is the only one; "loaded:NAME" stands
// for a library of that name which the process has already.
std::vector<std::string> nccl_library_places(const std::string& asked_path,
                                             const std::vector<std::string>& known);

// kNotFound names every place tried and why not; kUnsupported: too old, or lacks a function.
Result<NcclLibrary> load_nccl_library(const std::string& asked_path,
                                      const std::vector<std::string>& known);

}  // namespace hpcore::driver
