// Compares fabric_abi.hpp with libfabric's own headers, where those are installed; no code.
#include "driver/fabric_abi.hpp"

#if __has_include(<rdma/fi_rma.h>)
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_eq.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>

namespace hpcore::driver::fi {

#define SAME_VALUE(ours, theirs) static_assert((ours) == (theirs))
#define SAME_PLACE(Ours, theirs, field) \
  static_assert(offsetof(Ours, field) == offsetof(struct theirs, field))
#define SAME_START(Ours, theirs) static_assert(sizeof(Ours) <= sizeof(struct theirs))
#define ROOMY(Ours, theirs) static_assert(sizeof(Ours) >= sizeof(struct theirs))

SAME_VALUE(kMsg, FI_MSG);
SAME_VALUE(kRma, FI_RMA);
SAME_VALUE(kRead, FI_READ);
SAME_VALUE(kRecv, FI_RECV);
SAME_VALUE(kTransmit, FI_TRANSMIT);
SAME_VALUE(kRemoteRead, FI_REMOTE_READ);
SAME_VALUE(kCompletion, FI_COMPLETION);
SAME_VALUE(kHmem, FI_HMEM);
SAME_VALUE(kContext, FI_CONTEXT);
SAME_VALUE(kContext2, FI_CONTEXT2);
SAME_VALUE(kMrLocal, FI_MR_LOCAL);
SAME_VALUE(kMrVirtAddr, FI_MR_VIRT_ADDR);
SAME_VALUE(kMrAllocated, FI_MR_ALLOCATED);
SAME_VALUE(kMrProvKey, FI_MR_PROV_KEY);
SAME_VALUE(kMrHmem, FI_MR_HMEM);
SAME_VALUE(kEpRdm, FI_EP_RDM);
SAME_VALUE(kThreadSafe, FI_THREAD_SAFE);
SAME_VALUE(kAvTable, FI_AV_TABLE);
SAME_VALUE(kControlEnable, FI_ENABLE);
SAME_VALUE(kControlGetWait, FI_GETWAIT);
SAME_VALUE(kCqFormatContext, FI_CQ_FORMAT_CONTEXT);
SAME_VALUE(kWaitNone, FI_WAIT_NONE);
SAME_VALUE(kWaitFd, FI_WAIT_FD);
SAME_VALUE(kSockaddrIn, FI_SOCKADDR_IN);
SAME_VALUE(kSockaddrIn6, FI_SOCKADDR_IN6);
SAME_VALUE(kErrAvailable, FI_EAVAIL);

SAME_PLACE(FidOps, fi_ops, control);
SAME_PLACE(Fid, fid, ops);
SAME_PLACE(TxAttr, fi_tx_attr, rma_iov_limit);
SAME_PLACE(TxAttr, fi_tx_attr, size);
SAME_PLACE(RxAttr, fi_rx_attr, iov_limit);
SAME_PLACE(EpAttr, fi_ep_attr, protocol_version);
SAME_PLACE(EpAttr, fi_ep_attr, max_msg_size);
SAME_PLACE(DomainAttr, fi_domain_attr, name);
SAME_PLACE(DomainAttr, fi_domain_attr, threading);
SAME_PLACE(DomainAttr, fi_domain_attr, data_progress);
SAME_PLACE(DomainAttr, fi_domain_attr, av_type);
SAME_PLACE(DomainAttr, fi_domain_attr, mr_mode);
SAME_PLACE(DomainAttr, fi_domain_attr, mr_key_size);
SAME_PLACE(FabricAttr, fi_fabric_attr, prov_name);
SAME_PLACE(FabricAttr, fi_fabric_attr, prov_version);
SAME_PLACE(LinkAttr, fi_link_attr, speed);
SAME_PLACE(LinkAttr, fi_link_attr, state);
SAME_PLACE(Nic, fid_nic, link_attr);
SAME_PLACE(Info, fi_info, addr_format);
SAME_PLACE(Info, fi_info, src_addr);
SAME_PLACE(Info, fi_info, tx_attr);
SAME_PLACE(Info, fi_info, domain_attr);
SAME_PLACE(Info, fi_info, nic);
SAME_PLACE(CqAttr, fi_cq_attr, wait_set);
ROOMY(CqAttr, fi_cq_attr);
SAME_PLACE(AvAttr, fi_av_attr, flags);
ROOMY(AvAttr, fi_av_attr);
SAME_PLACE(MrAttr, fi_mr_attr, iface);
SAME_PLACE(MrAttr, fi_mr_attr, device);
ROOMY(MrAttr, fi_mr_attr);
SAME_PLACE(CqErrEntry, fi_cq_err_entry, err);
SAME_PLACE(CqErrEntry, fi_cq_err_entry, err_data_size);
ROOMY(CqErrEntry, fi_cq_err_entry);
SAME_PLACE(RmaIov, fi_rma_iov, key);
ROOMY(RmaIov, fi_rma_iov);
SAME_PLACE(MsgRma, fi_msg_rma, data);
ROOMY(MsgRma, fi_msg_rma);
SAME_PLACE(FabricOps, fi_ops_fabric, trywait);
SAME_PLACE(Fabric, fid_fabric, ops);
SAME_PLACE(DomainOps, fi_ops_domain, endpoint);
SAME_PLACE(Domain, fid_domain, mr);
SAME_PLACE(MrOps, fi_ops_mr, regattr);
SAME_PLACE(Mr, fid_mr, key);
SAME_PLACE(AvOps, fi_ops_av, insert);
SAME_PLACE(Av, fid_av, ops);
SAME_PLACE(CqOps, fi_ops_cq, sread);
SAME_PLACE(CqOps, fi_ops_cq, strerror);
SAME_PLACE(EpOps, fi_ops_ep, getopt);
SAME_PLACE(CmOps, fi_ops_cm, getname);
SAME_PLACE(RmaOps, fi_ops_rma, readmsg);
SAME_PLACE(Ep, fid_ep, rma);
SAME_START(Info, fi_info);

}  // namespace hpcore::driver::fi
#endif
