// Purpose: the `hpcore` c10d backend: every collective and point-to-point operation on CPU tensors,
// over the shared-memory collectives of one node. Threads: thread-safe, as c10d asks. Collectives
// run in the order of their calls, see Executor; point-to-point operations run beside them, see
// Mail. Ownership: Work objects hold their tensors until they are done. The memory of the group
// lives as long as a member maps it. Lifecycle: one for each process group, bound to one
// generation. The communicator is made at first use, so that a group costs nothing before; rank 0
// publishes its memory at once. When the generation is revoked every operation raises
// RosterChanged, now and later; make a new group then, or (torch 2.14) reconfigure() this one:
// operations must not be submitted beside that. shutdown() ends what was submitted, abort() cuts it
// short.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>

#include "torch/executor.hpp"
#include "torch/group.hpp"
#include "torch/membership.hpp"
#include "torch/tensors.hpp"
#include "torch/work.hpp"

namespace hpcore::torch_binding {

using WorkPtr = c10::intrusive_ptr<c10d::Work>;
using Tensors = std::vector<at::Tensor>;

class HpcoreBackend final : public c10d::Backend {
 public:
  HpcoreBackend(Group::Facts facts, std::chrono::milliseconds timeout);
  ~HpcoreBackend() override;

  [[nodiscard]] Group::Facts facts() const { return group()->facts(); }
  const std::string getBackendName() const override { return "hpcore"; }
  c10::intrusive_ptr<Options> getBackendOptions() override { return options_; }
  void setTimeout(std::chrono::milliseconds timeout) override { options_->timeout = timeout; }
  c10d::ErrorType getError() override;
  void abort() override;
  void shutdown() override;
  void setSequenceNumberForGroup() override {}  // starts at 0 on all ranks
  uint64_t getSequenceNumberForGroup() override { return sequence_.load(); }
  bool supportsSplitting() const override { return true; }
  c10::intrusive_ptr<Backend> split(const c10::intrusive_ptr<c10d::Store>& store,
                                    const std::vector<int>& ranks,
                                    const c10::intrusive_ptr<Options>& options) override;
  bool supportsCoalescing() const override { return true; }
  void startCoalescing() override;
  WorkPtr endCoalescing() override;

  WorkPtr broadcast(Tensors& tensors, const c10d::BroadcastOptions& options) override;
  WorkPtr allreduce(Tensors& tensors, const c10d::AllreduceOptions& options) override;
  WorkPtr allreduce_sparse(Tensors& tensors, const c10d::AllreduceOptions& options) override;
  WorkPtr allreduce_coalesced(Tensors& tensors,
                              const c10d::AllreduceCoalescedOptions& options) override;
  WorkPtr reduce(Tensors& tensors, const c10d::ReduceOptions& options) override;
  WorkPtr reduce_scatter(Tensors& outputs, std::vector<Tensors>& inputs,
                         const c10d::ReduceScatterOptions& options) override;
  WorkPtr _reduce_scatter_base(at::Tensor& output, at::Tensor& input,
                               const c10d::ReduceScatterOptions& options) override;
  WorkPtr reduce_scatter_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                          const c10d::ReduceScatterOptions& options) override;

  WorkPtr allgather(std::vector<Tensors>& outputs, Tensors& inputs,
                    const c10d::AllgatherOptions& options) override;
  WorkPtr _allgather_base(at::Tensor& output, at::Tensor& input,
                          const c10d::AllgatherOptions& options) override;
  WorkPtr allgather_coalesced(std::vector<Tensors>& outputs, Tensors& inputs,
                              const c10d::AllgatherOptions& options) override;
  WorkPtr allgather_into_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                          const c10d::AllgatherOptions& options) override;
  WorkPtr gather(std::vector<Tensors>& outputs, Tensors& inputs,
                 const c10d::GatherOptions& options) override;
  WorkPtr scatter(Tensors& outputs, std::vector<Tensors>& inputs,
                  const c10d::ScatterOptions& options) override;
  WorkPtr alltoall(Tensors& outputs, Tensors& inputs,
                   const c10d::AllToAllOptions& options) override;
  WorkPtr alltoall_base(at::Tensor& output, at::Tensor& input, std::vector<int64_t>& output_splits,
                        std::vector<int64_t>& input_splits,
                        const c10d::AllToAllOptions& options) override;
  WorkPtr barrier(const c10d::BarrierOptions& options) override;
  void monitoredBarrier(const c10d::BarrierOptions& options, bool wait_all_ranks) override;

  WorkPtr send(Tensors& tensors, int to, int tag) override;
  WorkPtr recv(Tensors& tensors, int from, int tag) override;
  WorkPtr recvAnysource(Tensors& tensors, int tag) override;

#if HPCORE_TORCH_MINOR >= 14
  bool supportsReconfigure() const override { return true; }
  c10d::ReconfigureHandle get_reconfigure_handle() const override;
  WorkPtr reconfigure(const c10d::ReconfigureOptions& options) override;
  // Run before abort(), and when an operation reaches its deadline.
  void registerAbortHook(int64_t hook_id, c10d::AbortHook hook) override;
  void unregisterAbortHook(int64_t hook_id) override;
  WorkPtr gather_single(at::Tensor& output, at::Tensor& input,
                        const c10d::GatherOptions& options) override;
#endif

 private:
  using Body = std::function<Status(collective::Communicator&, const collective::Limits&)>;
  struct Call {
    const char* title;
    c10d::OpType type;
    std::chrono::milliseconds timeout;
    bool async = true;
    Tensors inputs;
    Tensors outputs;
  };

  [[nodiscard]] std::shared_ptr<Group> group() const;  // also beside a reconfigure()
  void cut_short();
  void move_to(const Group::Facts& facts, TimePoint deadline);
  c10::intrusive_ptr<HpcoreWork> begin(const Call& call);
  WorkPtr submit(const Call& call, Body body);
  WorkPtr post(const Call& call, Staged staged, int peer, int tag);
  WorkPtr reduce_all(const Call& call, Staged staged, collective::DType dtype,
                     collective::Reduction reduction);
  [[nodiscard]] std::chrono::milliseconds chosen(std::chrono::milliseconds timeout) const;

  c10::intrusive_ptr<Options> options_;
  c10::intrusive_ptr<c10d::Store> first_store_;
  MemberHandle handle_;
  std::shared_ptr<AbortHooks> hooks_ = std::make_shared<AbortHooks>();
  mutable std::mutex group_mutex_;
  std::shared_ptr<Group> group_;       // read without the mutex by operations, see above
  FlightRecorder::GroupPtr recorded_;  // null without a recorder
  std::atomic<uint64_t> sequence_{0};
  std::atomic<uint64_t> splits_{0};
  std::mutex coalescing_mutex_;
  bool coalescing_ = false;
  std::vector<c10::intrusive_ptr<HpcoreWork>> coalesced_;
  Executor executor_;  // last: joined before anything that its jobs use goes
};

}  // namespace hpcore::torch_binding
