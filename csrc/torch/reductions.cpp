// Operations that reduce: allreduce, reduce, reduce_scatter and their coalesced forms.
#include "torch/backend.hpp"
#include "torch/error.hpp"

namespace hpcore::torch_binding {

using c10d::OpType;
using collective::Communicator;
using collective::DType;
using collective::Limits;
using collective::Reduction;

WorkPtr HpcoreBackend::reduce_all(const Call& call, Staged staged, DType dtype,
                                  Reduction reduction) {
  return submit(
      call, [staged, dtype, reduction](Communicator& communicator, const Limits& limits) mutable {
        const auto buffers = staged.buffers(dtype);
        HPCORE_RETURN_IF_ERROR(communicator.all_reduce(buffers, dtype, reduction, limits));
        staged.copy_back();
        return Status();
      });
}

WorkPtr HpcoreBackend::allreduce(Tensors& tensors, const c10d::AllreduceOptions& options) {
  check_one("allreduce", tensors.size(), "tensor");
  check_tensors("allreduce", tensors);
  const DType dtype = reducible("allreduce", tensors[0].scalar_type());
  const Call call{"hpcore:all_reduce", OpType::ALLREDUCE, options.timeout,
                  options.asyncOp,     tensors,           tensors};
  return reduce_all(call, Staged(tensors, Staged::Use::kReadWrite), dtype,
                    reduction_of("allreduce", options.reduceOp));
}

WorkPtr HpcoreBackend::allreduce_coalesced(Tensors& tensors,
                                           const c10d::AllreduceCoalescedOptions& options) {
  if (tensors.empty()) invalid("allreduce_coalesced", "needs at least one tensor");
  check_alike("allreduce_coalesced", tensors);
  const DType dtype = reducible("allreduce_coalesced", tensors[0].scalar_type());
  const Call call{"hpcore:all_reduce_coalesced",
                  OpType::ALLREDUCE_COALESCED,
                  options.timeout,
                  options.asyncOp,
                  tensors,
                  tensors};
  return reduce_all(call, Staged(tensors, Staged::Use::kReadWrite), dtype,
                    reduction_of("allreduce_coalesced", options.reduceOp));
}

WorkPtr HpcoreBackend::allreduce_sparse(Tensors& /*tensors*/,
                                        const c10d::AllreduceOptions& /*options*/) {
  raise({Code::kUnsupported,
         "hpcore allreduce: sparse tensors are not supported; use .to_dense(), or sparse=False "
         "for the embedding that makes these gradients"});
}

WorkPtr HpcoreBackend::reduce(Tensors& tensors, const c10d::ReduceOptions& options) {
  check_one("reduce", tensors.size(), "tensor");
  check_tensors("reduce", tensors);
  const DType dtype = reducible("reduce", tensors[0].scalar_type());
  const Reduction reduction = reduction_of("reduce", options.reduceOp);
  const int root = static_cast<int>(options.rootRank);
  const bool writes = root == getRank();
  Staged staged(tensors, writes ? Staged::Use::kReadWrite : Staged::Use::kRead);
  const Call call{"hpcore:reduce", OpType::REDUCE, options.timeout,
                  options.asyncOp, tensors,        tensors};
  return submit(call, [staged, dtype, reduction, root](Communicator& communicator,
                                                       const Limits& limits) mutable {
    const auto buffers = staged.buffers(dtype);
    HPCORE_RETURN_IF_ERROR(communicator.reduce(buffers, dtype, reduction, root, limits));
    staged.copy_back();
    return Status();
  });
}

WorkPtr HpcoreBackend::reduce_scatter(Tensors& outputs, std::vector<Tensors>& inputs,
                                      const c10d::ReduceScatterOptions& options) {
  constexpr const char* kOp = "reduce_scatter";
  check_one(kOp, outputs.size(), "output tensor");
  check_one(kOp, inputs.size(), "list of input tensors");
  check_numel(kOp, "the list of inputs", static_cast<int64_t>(inputs[0].size()), getSize());
  Tensors all = inputs[0];
  all.push_back(outputs[0]);
  check_alike(kOp, all);
  const int rank = getRank();
  check_numel(kOp, "the output", outputs[0].numel(), inputs[0][static_cast<size_t>(rank)].numel());
  const DType dtype = reducible(kOp, outputs[0].scalar_type());
  const Reduction reduction = reduction_of(kOp, options.reduceOp);
  Staged from(inputs[0], Staged::Use::kRead);
  Staged to(outputs, Staged::Use::kWrite);
  const Call call{"hpcore:reduce_scatter",
                  OpType::REDUCE_SCATTER,
                  options.timeout,
                  options.asyncOp,
                  inputs[0],
                  outputs};
  return submit(
      call, [from, to, dtype, reduction](Communicator& communicator, const Limits& limits) mutable {
        const auto in = from.buffers(dtype);
        const auto out = to.buffers(dtype);
        HPCORE_RETURN_IF_ERROR(communicator.reduce_scatter(in, out[0], dtype, reduction, limits));
        to.copy_back();
        return Status();
      });
}

WorkPtr HpcoreBackend::_reduce_scatter_base(at::Tensor& output, at::Tensor& input,
                                            const c10d::ReduceScatterOptions& options) {
  Tensors outputs{output};
  Tensors inputs{input};
  return reduce_scatter_tensor_coalesced(outputs, inputs, options);
}

WorkPtr HpcoreBackend::reduce_scatter_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                                       const c10d::ReduceScatterOptions& options) {
  constexpr const char* kOp = "reduce_scatter_tensor";
  check_numel(kOp, "the list of inputs", static_cast<int64_t>(inputs.size()),
              static_cast<int64_t>(outputs.size()));
  check_tensors(kOp, inputs);
  check_tensors(kOp, outputs);
  std::vector<DType> dtypes;
  for (size_t i = 0; i < inputs.size(); ++i) {
    check_alike(kOp, {inputs[i], outputs[i]});
    check_numel(kOp, "the input", inputs[i].numel(), outputs[i].numel() * getSize());
    dtypes.push_back(reducible(kOp, inputs[i].scalar_type()));
  }
  const Reduction reduction = reduction_of(kOp, options.reduceOp);
  Staged from(inputs, Staged::Use::kRead);
  Staged to(outputs, Staged::Use::kWrite);
  const int size = getSize();
  const Call call{"hpcore:reduce_scatter_tensor",
                  OpType::_REDUCE_SCATTER_BASE,
                  options.timeout,
                  options.asyncOp,
                  inputs,
                  outputs};
  return submit(call, [from, to, dtypes, reduction, size](Communicator& communicator,
                                                          const Limits& limits) mutable {
    for (size_t i = 0; i < dtypes.size(); ++i) {
      const auto in = torch_binding::split(from.contiguous()[i], size, dtypes[i]);
      const auto& out = to.contiguous()[i];
      HPCORE_RETURN_IF_ERROR(communicator.reduce_scatter(
          in, {out.data_ptr(), static_cast<size_t>(out.numel())}, dtypes[i], reduction, limits));
    }
    to.copy_back();
    return Status();
  });
}

}  // namespace hpcore::torch_binding
