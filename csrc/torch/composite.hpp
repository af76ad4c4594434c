// Purpose: one c10d backend for tensors of two kinds of device: ours for CPU tensors, torch's own
// ProcessGroupNCCL (or what else serves the accelerator) for the others. Each call goes to the
// backend of its tensors' device; calls without tensors go to both, or to the CPU's.
// Threads: as thread-safe as the two. Ownership: shares both. Lifecycle: as theirs; abort() and
// shutdown() end both. The accelerator's backend is made at the first call that needs it: a job
// without such tensors never has one. When the generation is revoked, a thread aborts it, as its
// operations would otherwise wait for a lost rank until their deadline.
#pragma once

#include <functional>
#include <mutex>
#include <thread>
#include <torch/csrc/distributed/c10d/Backend.hpp>

#include "base/doorbell.hpp"
#include "roster/revocation.hpp"

namespace hpcore::torch_binding {

using BackendPtr = c10::intrusive_ptr<c10d::Backend>;

class CompositeBackend final : public c10d::Backend {
 public:
  using Tensors = std::vector<at::Tensor>;
  using WorkPtr = c10::intrusive_ptr<c10d::Work>;
  struct Facts {
    c10::intrusive_ptr<c10d::Store> store;  // of this group alone
    int rank = 0;
    int size = 1;
    std::chrono::milliseconds timeout{};
    std::string name;
    std::vector<int64_t> global_ranks;
  };
  using Make = std::function<BackendPtr(const Facts&)>;  // called once, in all ranks, without GIL
  struct Parts {
    BackendPtr cpu;
    Facts facts;
    Make make_accelerator;
    // Tensors on a device of this type go to the accelerator's backend, all others to the CPU's.
    c10::DeviceType device_type = c10::DeviceType::CUDA;
    std::shared_ptr<Revocation> revocation;  // null: nothing revokes the group
    uint64_t generation = 1;
  };

  explicit CompositeBackend(Parts parts);
  ~CompositeBackend() override;

  const std::string getBackendName() const override { return "hpcore"; }
  c10::intrusive_ptr<Options> getBackendOptions() override {
    return parts_.cpu->getBackendOptions();
  }
  void setTimeout(std::chrono::milliseconds timeout) override;
  c10d::ErrorType getError() override;
  void abort() override;
  void shutdown() override;
  void setSequenceNumberForGroup() override { parts_.cpu->setSequenceNumberForGroup(); }
  uint64_t getSequenceNumberForGroup() override { return parts_.cpu->getSequenceNumberForGroup(); }
  void setGroupUid(const std::string& uid) override;
  bool supportsSplitting() const override { return true; }
  BackendPtr split(const c10::intrusive_ptr<c10d::Store>& store, const std::vector<int>& ranks,
                   const c10::intrusive_ptr<Options>& options) override;
  bool supportsCoalescing() const override { return true; }
  void startCoalescing() override;
  WorkPtr endCoalescing() override;
  void waitForPendingWorks() override { accelerator().waitForPendingWorks(); }
  void enableCollectivesTiming() override { accelerator().enableCollectivesTiming(); }
  void eagerConnectSingleDevice(at::Device device) override {
    if (device.type() == parts_.device_type) accelerator().eagerConnectSingleDevice(device);
  }
  std::shared_ptr<c10::Allocator> getMemAllocator() override {
    return accelerator().getMemAllocator();
  }
  at::Tensor allocateTensor(long size, at::TensorOptions options) override {
    return accelerator().allocateTensor(size, options);
  }
  bool supportsTensorAlloc(c10::DeviceIndex index) override {
    return accelerator().supportsTensorAlloc(index);
  }

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
  void monitoredBarrier(const c10d::BarrierOptions& options, bool wait_all_ranks) override {
    parts_.cpu->monitoredBarrier(options, wait_all_ranks);
  }
  WorkPtr send(Tensors& tensors, int to, int tag) override;
  WorkPtr recv(Tensors& tensors, int from, int tag) override;
  WorkPtr recvAnysource(Tensors& tensors, int tag) override;

#if HPCORE_TORCH_MINOR >= 14
  bool supportsReconfigure() const override { return parts_.cpu->supportsReconfigure(); }
  c10d::ReconfigureHandle get_reconfigure_handle() const override {
    return parts_.cpu->get_reconfigure_handle();
  }
  // The CPU's backend moves; the accelerator's is aborted, and made anew when it is next needed.
  WorkPtr reconfigure(const c10d::ReconfigureOptions& options) override;
  void registerAbortHook(int64_t hook_id, c10d::AbortHook hook) override {
    parts_.cpu->registerAbortHook(hook_id, std::move(hook));
  }
  void unregisterAbortHook(int64_t hook_id) override { parts_.cpu->unregisterAbortHook(hook_id); }
  WorkPtr gather_single(at::Tensor& output, at::Tensor& input,
                        const c10d::GatherOptions& options) override {
    return of(input).gather_single(output, input, options);
  }
#endif

 private:
  // Also begins the coalescing of that backend, if a coalescing block is open.
  c10d::Backend& of(const at::Tensor& tensor);
  c10d::Backend& of(const Tensors& tensors);
  c10d::Backend& of(bool accelerator);
  c10d::Backend& accelerator();  // makes it; raises what making it raised
  [[nodiscard]] BackendPtr accelerator_if_made();
  void check_standing();
  void watch();
  void stop_watching();
  void abort_accelerator();

  Parts parts_;
  c10::intrusive_ptr<c10d::Store> first_store_;
  std::mutex making_;  // held while the accelerator's backend is made; never take it with the GIL
  std::mutex mutex_;   // guards the rest
  BackendPtr accelerator_;
  bool ended_ = false;
  bool coalescing_ = false;
  bool coalescing_cpu_ = false;
  bool coalescing_accelerator_ = false;
  Doorbell doorbell_;
  std::atomic<bool> stopping_{false};
  std::thread watcher_;
};

}  // namespace hpcore::torch_binding
