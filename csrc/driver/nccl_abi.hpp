// Purpose: what this code uses of NCCL's binary interface, declared here so that it builds where
// no NCCL is installed. Names are NCCL's without the prefix, in a namespace of their own.
// nccl_abi_check.cpp compares every value and offset with the wheel's <nccl.h> where it is found.
// The configuration is that of 2.27: NCCL looks at `size` and `version` and takes defaults for what
// came later; an older library reads the part that it knows.
// Source: nccl.h of 2.14 to 2.30. Threads, ownership: plain data.
#pragma once

#include <climits>
#include <cstddef>

namespace hpcore::driver::nccl {

enum Result : int {
  kSuccess,
  kUnhandledCudaError,
  kSystemError,
  kInternalError,
  kInvalidArgument,
  kInvalidUsage,
  kRemoteError,
  kInProgress
};

constexpr int version(int major, int minor, int patch) {
  return major * 10000 + minor * 100 + patch;  // as of 2.9
}

constexpr size_t kUniqueIdBytes = 128;
struct UniqueId {
  char internal[kUniqueIdBytes];
};

struct Comm;    // ncclComm, opaque
struct Stream;  // CUstream_st, opaque

constexpr int kUint8 = 1;
constexpr int kUndefined = INT_MIN;
constexpr unsigned kMagic = 0xcafebeef;
constexpr int kShrinkDefault = 0;
constexpr int kShrinkAbort = 1;

struct Config {
  size_t size = sizeof(Config);
  unsigned magic = kMagic;
  unsigned version = nccl::version(2, 27, 0);
  int blocking = kUndefined;
  int cga_cluster_size = kUndefined;
  int min_ctas = kUndefined;
  int max_ctas = kUndefined;
  const char* net_name = nullptr;
  int split_share = kUndefined;
  int traffic_class = kUndefined;
  const char* comm_name = nullptr;
  int collnet_enable = kUndefined;
  int cta_policy = kUndefined;
  int shrink_share = kUndefined;
  int nvls_ctas = kUndefined;
};

}  // namespace hpcore::driver::nccl
