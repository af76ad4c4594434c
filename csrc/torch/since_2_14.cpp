// What torch 2.14 added to c10d::Backend, less our own reconfigure. One-sided windows are refused,
// by torch's own message.
#include "torch/backend.hpp"
#include "torch/composite.hpp"
#include "torch/without_gil.hpp"

#if HPCORE_TORCH_MINOR >= 14

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>

namespace hpcore::torch_binding {

void HpcoreBackend::registerAbortHook(int64_t hook_id, c10d::AbortHook hook) {
  hooks_->add(hook_id, std::move(hook));
}

void HpcoreBackend::unregisterAbortHook(int64_t hook_id) { hooks_->remove(hook_id); }

// The output holds the ranks' inputs one after the other: a gather into views of it.
WorkPtr HpcoreBackend::gather_single(at::Tensor& output, at::Tensor& input,
                                     const c10d::GatherOptions& options) {
  constexpr const char* kOp = "gather_single";
  std::vector<Tensors> outputs;
  if (options.rootRank == getRank()) {
    check_alike(kOp, {input, output});
    check_numel(kOp, "the output", output.numel(), input.numel() * getSize());
    if (!output.is_contiguous()) invalid(kOp, "the output is not contiguous: pass one that is");
    const at::Tensor flat = output.view({getSize(), input.numel()});
    outputs.emplace_back();
    for (int rank = 0; rank < getSize(); ++rank) {
      outputs[0].push_back(flat.select(0, rank).view(input.sizes()));
    }
  }
  Tensors inputs{input};
  return gather(outputs, inputs, options);
}

WorkPtr CompositeBackend::reconfigure(const c10d::ReconfigureOptions& options) {
  auto work = parts_.cpu->reconfigure(options);
  abort_accelerator();
  // Where the members have met, or (Gloo, of several hosts) a place of this reconfigure's own.
  if (const auto* ours = dynamic_cast<HpcoreBackend*>(parts_.cpu.get())) {
    const Group::Facts facts = ours->facts();
    parts_.facts.store = c10::make_intrusive<c10d::PrefixStore>("accelerator", facts.store);
    parts_.generation = facts.generation;
  } else {
    parts_.facts.store = c10::make_intrusive<c10d::PrefixStore>(
        "reconfigure/" + std::to_string(options.uuid), first_store_);
  }
  parts_.facts.rank = rank_ = parts_.cpu->getRank();
  parts_.facts.size = size_ = parts_.cpu->getSize();
  const auto& ranks = parts_.cpu->getBackendOptions()->global_ranks_in_group;
  parts_.facts.global_ranks.assign(ranks.begin(), ranks.end());
  const std::lock_guard lock(mutex_);
  coalescing_ = coalescing_cpu_ = coalescing_accelerator_ = ended_ = false;
  stopping_ = false;
  return work;
}

void CompositeBackend::abort_accelerator() {
  stop_watching();
  BackendPtr accelerator;
  {
    const std::lock_guard lock(mutex_);
    accelerator = std::move(accelerator_);
  }
  if (!accelerator) return;
  without_gil([&accelerator] {
    accelerator->abort();
    accelerator.reset();
  });
}

}  // namespace hpcore::torch_binding

#endif
