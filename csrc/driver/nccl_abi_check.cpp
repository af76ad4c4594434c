// Compares nccl_abi.hpp with the header of the nvidia-nccl wheel, where the build found one; no
// code. cuda_stub/ stands in for the CUDA headers that it includes.
#include "driver/nccl_abi.hpp"

#if __has_include(<nccl.h>)
#include <nccl.h>

namespace hpcore::driver::nccl {

#define SAME_VALUE(ours, theirs) static_assert(static_cast<long>(ours) == static_cast<long>(theirs))
#define SAME_PLACE(ours, theirs) \
  static_assert(offsetof(Config, ours) == offsetof(ncclConfig_t, theirs))

SAME_VALUE(kSuccess, ncclSuccess);
SAME_VALUE(kUnhandledCudaError, ncclUnhandledCudaError);
SAME_VALUE(kSystemError, ncclSystemError);
SAME_VALUE(kInternalError, ncclInternalError);
SAME_VALUE(kInvalidArgument, ncclInvalidArgument);
SAME_VALUE(kInvalidUsage, ncclInvalidUsage);
SAME_VALUE(kRemoteError, ncclRemoteError);
SAME_VALUE(kInProgress, ncclInProgress);
SAME_VALUE(kUniqueIdBytes, NCCL_UNIQUE_ID_BYTES);
SAME_VALUE(sizeof(UniqueId), sizeof(ncclUniqueId));
SAME_VALUE(version(2, 27, 3), NCCL_VERSION(2, 27, 3));
SAME_VALUE(kUint8, ncclUint8);
SAME_VALUE(kUndefined, NCCL_CONFIG_UNDEF_INT);
SAME_PLACE(size, size);
SAME_PLACE(magic, magic);
SAME_PLACE(version, version);
SAME_PLACE(blocking, blocking);

#if NCCL_VERSION_CODE >= 21800
SAME_PLACE(cga_cluster_size, cgaClusterSize);
SAME_PLACE(min_ctas, minCTAs);
SAME_PLACE(max_ctas, maxCTAs);
SAME_PLACE(net_name, netName);
SAME_PLACE(split_share, splitShare);
#endif

#if NCCL_VERSION_CODE >= 22700
SAME_VALUE(kMagic, NCCL_API_MAGIC);
SAME_PLACE(traffic_class, trafficClass);
SAME_PLACE(comm_name, commName);
SAME_PLACE(collnet_enable, collnetEnable);
SAME_PLACE(cta_policy, CTAPolicy);
SAME_PLACE(shrink_share, shrinkShare);
SAME_PLACE(nvls_ctas, nvlsCTAs);
SAME_VALUE(kShrinkDefault, NCCL_SHRINK_DEFAULT);
SAME_VALUE(kShrinkAbort, NCCL_SHRINK_ABORT);
static_assert(sizeof(Config) <= sizeof(ncclConfig_t));
#endif

}  // namespace hpcore::driver::nccl
#endif
