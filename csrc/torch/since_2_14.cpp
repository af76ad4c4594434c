// What torch 2.14 added to c10d::Backend, less reconfigure. One-sided windows are refused, by
// torch's own message.
#include "torch/backend.hpp"

#if HPCORE_TORCH_MINOR >= 14

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

}  // namespace hpcore::torch_binding

#endif
