// Purpose: what this code uses of libfabric's binary interface, declared here so that it builds
// where no libfabric is installed. Names are libfabric's, in a namespace of their own; structures
// that libfabric allocates are declared up to the last field that is used (fields were only ever
// appended); those that we allocate are padded for fields that newer versions append.
// fabric_abi_check.cpp compares every offset and value with <rdma/*.h> where those are installed.
// Source: fabric(7) and the headers of 1.17 and 2.5. Threads, ownership: plain data.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>

namespace hpcore::driver::fi {

constexpr uint32_t version(uint32_t major, uint32_t minor) { return major << 16 | minor; }

constexpr uint64_t kMsg = 1ULL << 1, kRma = 1ULL << 2, kRead = 1ULL << 8, kRecv = 1ULL << 10;
constexpr uint64_t kTransmit = 1ULL << 11, kRemoteRead = 1ULL << 12, kCompletion = 1ULL << 24;
constexpr uint64_t kHmem = 1ULL << 47, kContext = 1ULL << 59, kContext2 = 1ULL << 52;
constexpr int kMrLocal = 1 << 2, kMrVirtAddr = 1 << 4, kMrAllocated = 1 << 5, kMrProvKey = 1 << 6;
constexpr int kMrHmem = 1 << 10;
constexpr int kEpRdm = 3, kThreadSafe = 1, kAvTable = 2, kControlEnable = 6, kControlGetWait = 5;
constexpr int kCqFormatContext = 1, kWaitNone = 0, kWaitFd = 3;
constexpr uint32_t kSockaddrIn = 2, kSockaddrIn6 = 3;
constexpr int kOptionEfaEmulatedRead = -(0xefa << 16) + 1;  // rdma/fi_ext.h, 1.18 and later
constexpr int kErrAvailable = 259;  // rdma/fi_errno.h: errno's numbers, its own from 256 on

struct Fid;
struct FidOps {
  size_t size;
  int (*close)(Fid*);
  int (*bind)(Fid*, Fid*, uint64_t flags);
  int (*control)(Fid*, int command, void* argument);
};
struct Fid {
  size_t fclass;
  void* context;
  FidOps* ops;
};

struct TxAttr {
  uint64_t caps, mode, op_flags, msg_order, comp_order;
  size_t inject_size, size, iov_limit, rma_iov_limit;
};
struct RxAttr {
  uint64_t caps, mode, op_flags, msg_order, comp_order;
  size_t total_buffered_recv, size, iov_limit;
};
struct EpAttr {
  int type;
  uint32_t protocol, protocol_version;
  size_t max_msg_size;
};
struct DomainAttr {
  Fid* domain;
  char* name;
  int threading, control_progress, data_progress, resource_mgmt, av_type, mr_mode;
  size_t mr_key_size;
};
struct FabricAttr {
  Fid* fabric;
  char* name;
  char* prov_name;
  uint32_t prov_version, api_version;
};
enum LinkState : int { kLinkUnknown, kLinkDown, kLinkUp };
struct LinkAttr {
  char* address;
  size_t mtu, speed;  // speed: bits per second
  LinkState state;
  char* network_type;
};
struct Nic {
  Fid fid;
  void* device_attr;
  void* bus_attr;
  LinkAttr* link_attr;
};
struct Info {
  Info* next;
  uint64_t caps, mode;
  uint32_t addr_format;
  size_t src_addrlen, dest_addrlen;
  void* src_addr;
  void* dest_addr;
  Fid* handle;
  TxAttr* tx_attr;
  RxAttr* rx_attr;
  EpAttr* ep_attr;
  DomainAttr* domain_attr;
  FabricAttr* fabric_attr;
  Nic* nic;
};

struct CqAttr {
  size_t size;
  uint64_t flags;
  int format, wait_obj, signaling_vector, wait_cond;
  void* wait_set;
};
struct AvAttr {
  int type, rx_ctx_bits;
  size_t count, ep_per_node;
  const char* name;
  void* map_addr;
  uint64_t flags;
};
struct MrAttr {
  const iovec* mr_iov;
  size_t iov_count;
  uint64_t access, offset, requested_key;
  void* context;
  size_t auth_key_size;
  uint8_t* auth_key;
  int iface;
  uint64_t device;
  uint64_t newer[16];
};
struct CqErrEntry {
  void* op_context;
  uint64_t flags;
  size_t len;
  void* buf;
  uint64_t data, tag;
  size_t olen;
  int err, prov_errno;
  void* err_data;
  size_t err_data_size;
  uint64_t newer[16];
};
struct RmaIov {
  uint64_t addr;
  size_t len;
  uint64_t key;
};
struct MsgRma {
  const iovec* msg_iov;
  void** desc;
  size_t iov_count;
  uint64_t addr;
  const RmaIov* rma_iov;
  size_t rma_iov_count;
  void* context;
  uint64_t data;
};

struct Fabric;
struct Domain;
struct Av;
struct Cq;
struct Ep;
struct Mr;
struct FabricOps {
  size_t size;
  int (*domain)(Fabric*, Info*, Domain**, void* context);
  int (*passive_ep)(Fabric*, Info*, void**, void* context);
  int (*eq_open)(Fabric*, void*, void**, void* context);
  int (*wait_open)(Fabric*, void*, void**);
  int (*trywait)(Fabric*, Fid**, int count);
};
struct Fabric {
  Fid fid;
  FabricOps* ops;
};
struct DomainOps {
  size_t size;
  int (*av_open)(Domain*, AvAttr*, Av**, void* context);
  int (*cq_open)(Domain*, CqAttr*, Cq**, void* context);
  int (*endpoint)(Domain*, Info*, Ep**, void* context);
};
struct MrOps {
  size_t size;
  int (*reg)(Fid*, const void*, size_t, uint64_t access, uint64_t offset, uint64_t key,
             uint64_t flags, Mr**, void* context);
  int (*regv)(Fid*, const iovec*, size_t, uint64_t access, uint64_t offset, uint64_t key,
              uint64_t flags, Mr**, void* context);
  int (*regattr)(Fid*, const MrAttr*, uint64_t flags, Mr**);
};
struct Domain {
  Fid fid;
  DomainOps* ops;
  MrOps* mr;
};
struct Mr {
  Fid fid;
  void* mem_desc;
  uint64_t key;
};
struct AvOps {
  size_t size;
  int (*insert)(Av*, const void*, size_t count, uint64_t* addresses, uint64_t flags, void*);
};
struct Av {
  Fid fid;
  AvOps* ops;
};
struct CqOps {
  size_t size;
  ssize_t (*read)(Cq*, void* entries, size_t count);
  ssize_t (*readfrom)(Cq*, void* entries, size_t count, uint64_t* from);
  ssize_t (*readerr)(Cq*, CqErrEntry*, uint64_t flags);
  ssize_t (*sread)(Cq*, void* entries, size_t count, const void* condition, int timeout_ms);
  ssize_t (*sreadfrom)(Cq*, void*, size_t, uint64_t*, const void*, int);
  int (*signal)(Cq*);
  const char* (*strerror)(Cq*, int prov_errno, const void* data, char* text, size_t bytes);
};
struct Cq {
  Fid fid;
  CqOps* ops;
};
struct EpOps {
  size_t size;
  ssize_t (*cancel)(Fid*, void* context);
  int (*getopt)(Fid*, int level, int name, void* value, size_t* bytes);
};
struct CmOps {
  size_t size;
  int (*setname)(Fid*, void*, size_t);
  int (*getname)(Fid*, void*, size_t*);
};
struct RmaOps {
  size_t size;
  ssize_t (*read)(Ep*, void*, size_t, void* desc, uint64_t from, uint64_t addr, uint64_t key,
                  void* context);
  ssize_t (*readv)(Ep*, const iovec*, void** desc, size_t, uint64_t from, uint64_t addr,
                   uint64_t key, void* context);
  ssize_t (*readmsg)(Ep*, const MsgRma*, uint64_t flags);
};
struct Ep {
  Fid fid;
  EpOps* ops;
  CmOps* cm;
  void* msg;
  RmaOps* rma;
};

}  // namespace hpcore::driver::fi
