// Every operation, passed on to the backend of its tensors' device.
#include "torch/composite.hpp"

namespace hpcore::torch_binding {

using WorkPtr = CompositeBackend::WorkPtr;

WorkPtr CompositeBackend::broadcast(Tensors& tensors, const c10d::BroadcastOptions& options) {
  return of(tensors).broadcast(tensors, options);
}

WorkPtr CompositeBackend::allreduce(Tensors& tensors, const c10d::AllreduceOptions& options) {
  return of(tensors).allreduce(tensors, options);
}

WorkPtr CompositeBackend::allreduce_sparse(Tensors& tensors,
                                           const c10d::AllreduceOptions& options) {
  return of(tensors).allreduce_sparse(tensors, options);
}

WorkPtr CompositeBackend::allreduce_coalesced(Tensors& tensors,
                                              const c10d::AllreduceCoalescedOptions& options) {
  return of(tensors).allreduce_coalesced(tensors, options);
}

WorkPtr CompositeBackend::reduce(Tensors& tensors, const c10d::ReduceOptions& options) {
  return of(tensors).reduce(tensors, options);
}

WorkPtr CompositeBackend::reduce_scatter(Tensors& outputs, std::vector<Tensors>& inputs,
                                         const c10d::ReduceScatterOptions& options) {
  return of(outputs).reduce_scatter(outputs, inputs, options);
}

WorkPtr CompositeBackend::_reduce_scatter_base(at::Tensor& output, at::Tensor& input,
                                               const c10d::ReduceScatterOptions& options) {
  return of(output)._reduce_scatter_base(output, input, options);
}

WorkPtr CompositeBackend::reduce_scatter_tensor_coalesced(
    Tensors& outputs, Tensors& inputs, const c10d::ReduceScatterOptions& options) {
  return of(outputs).reduce_scatter_tensor_coalesced(outputs, inputs, options);
}

WorkPtr CompositeBackend::allgather(std::vector<Tensors>& outputs, Tensors& inputs,
                                    const c10d::AllgatherOptions& options) {
  return of(inputs).allgather(outputs, inputs, options);
}

WorkPtr CompositeBackend::_allgather_base(at::Tensor& output, at::Tensor& input,
                                          const c10d::AllgatherOptions& options) {
  return of(output)._allgather_base(output, input, options);
}

WorkPtr CompositeBackend::allgather_coalesced(std::vector<Tensors>& outputs, Tensors& inputs,
                                              const c10d::AllgatherOptions& options) {
  return of(inputs).allgather_coalesced(outputs, inputs, options);
}

WorkPtr CompositeBackend::allgather_into_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                                          const c10d::AllgatherOptions& options) {
  return of(inputs).allgather_into_tensor_coalesced(outputs, inputs, options);
}

WorkPtr CompositeBackend::gather(std::vector<Tensors>& outputs, Tensors& inputs,
                                 const c10d::GatherOptions& options) {
  return of(inputs).gather(outputs, inputs, options);
}

WorkPtr CompositeBackend::scatter(Tensors& outputs, std::vector<Tensors>& inputs,
                                  const c10d::ScatterOptions& options) {
  return of(outputs).scatter(outputs, inputs, options);
}

WorkPtr CompositeBackend::alltoall(Tensors& outputs, Tensors& inputs,
                                   const c10d::AllToAllOptions& options) {
  return of(outputs).alltoall(outputs, inputs, options);
}

WorkPtr CompositeBackend::alltoall_base(at::Tensor& output, at::Tensor& input,
                                        std::vector<int64_t>& output_splits,
                                        std::vector<int64_t>& input_splits,
                                        const c10d::AllToAllOptions& options) {
  return of(output).alltoall_base(output, input, output_splits, input_splits, options);
}

// As torch's own groups do: with a device named it is a barrier of that device's streams.
WorkPtr CompositeBackend::barrier(const c10d::BarrierOptions& options) {
  const bool named = options.device && options.device->type() == parts_.device_type;
  return of(named || !options.device_ids.empty()).barrier(options);
}

WorkPtr CompositeBackend::send(Tensors& tensors, int to, int tag) {
  return of(tensors).send(tensors, to, tag);
}

WorkPtr CompositeBackend::recv(Tensors& tensors, int from, int tag) {
  return of(tensors).recv(tensors, from, tag);
}

WorkPtr CompositeBackend::recvAnysource(Tensors& tensors, int tag) {
  return of(tensors).recvAnysource(tensors, tag);
}

}  // namespace hpcore::torch_binding
