// Purpose: Python's [(address, nbytes)] and names of methods -> the transport room's types. Call
// with the GIL held.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "bind/errors.hpp"
#include "transport/remote_memory.hpp"

namespace hpcore::bind {

using Regions = std::vector<std::pair<uint64_t, uint64_t>>;

inline std::vector<transport::Region> regions_of(const Regions& pairs) {
  std::vector<transport::Region> regions;
  regions.reserve(pairs.size());
  for (const auto& [address, bytes] : pairs) regions.push_back({address, bytes});
  return regions;
}

inline transport::Method method_of(const std::string& name) {
  if (name == "probe") return transport::Method::kProbe;
  if (name == "arena") return transport::Method::kArena;
  if (name == "process_vm_readv") return transport::Method::kProcessMemory;
  if (name == "staging") return transport::Method::kStaging;
  check(Status(Code::kInvalid,
               "method \"" + name + "\" is none of probe, arena, process_vm_readv, staging"));
  return transport::Method::kProbe;
}

}  // namespace hpcore::bind
