// Operations that only copy: broadcast, allgather, gather, scatter, alltoall and barriers.
#include "torch/backend.hpp"

namespace hpcore::torch_binding {

using c10d::OpType;
using collective::Buffers;
using collective::Communicator;
using collective::DType;
using collective::Limits;
using Use = Staged::Use;

namespace {

void check_per_rank(const char* op, const char* what, const Tensors& tensors, int size) {
  check_numel(op, what, static_cast<int64_t>(tensors.size()), size);
  check_alike(op, tensors);
}

}  // namespace

WorkPtr HpcoreBackend::broadcast(Tensors& tensors, const c10d::BroadcastOptions& options) {
  check_one("broadcast", tensors.size(), "tensor");
  check_tensors("broadcast", tensors);
  const DType wire = wire_type(tensors[0].scalar_type());
  const int root = static_cast<int>(options.rootRank);
  Staged staged(tensors, root == getRank() ? Use::kRead : Use::kWrite);
  const Call call{"hpcore:broadcast", OpType::BROADCAST, options.timeout,
                  options.asyncOp,    tensors,           tensors};
  return submit(call,
                [staged, wire, root](Communicator& communicator, const Limits& limits) mutable {
                  const auto buffers = staged.buffers(wire);
                  HPCORE_RETURN_IF_ERROR(communicator.broadcast(buffers, wire, root, limits));
                  staged.copy_back();
                  return Status();
                });
}

WorkPtr HpcoreBackend::allgather(std::vector<Tensors>& outputs, Tensors& inputs,
                                 const c10d::AllgatherOptions& options) {
  constexpr const char* kOp = "allgather";
  check_one(kOp, inputs.size(), "input tensor");
  check_one(kOp, outputs.size(), "list of output tensors");
  check_per_rank(kOp, "the list of outputs", outputs[0], getSize());
  check_alike(kOp, {inputs[0], outputs[0][0]});
  const DType wire = wire_type(inputs[0].scalar_type());
  Staged from(inputs, Use::kRead);
  Staged to(outputs[0], Use::kWrite);
  const Call call{"hpcore:all_gather", OpType::ALLGATHER, options.timeout, options.asyncOp, inputs,
                  outputs[0]};
  return submit(call, [from, to, wire](Communicator& communicator, const Limits& limits) mutable {
    const auto out = to.buffers(wire);
    HPCORE_RETURN_IF_ERROR(communicator.all_gather(from.buffers(wire)[0], out, wire, limits));
    to.copy_back();
    return Status();
  });
}

WorkPtr HpcoreBackend::_allgather_base(at::Tensor& output, at::Tensor& input,
                                       const c10d::AllgatherOptions& options) {
  Tensors outputs{output};
  Tensors inputs{input};
  return allgather_into_tensor_coalesced(outputs, inputs, options);
}

WorkPtr HpcoreBackend::allgather_into_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                                       const c10d::AllgatherOptions& options) {
  constexpr const char* kOp = "all_gather_into_tensor";
  check_numel(kOp, "the list of inputs", static_cast<int64_t>(inputs.size()),
              static_cast<int64_t>(outputs.size()));
  for (size_t i = 0; i < inputs.size(); ++i) {
    check_alike(kOp, {inputs[i], outputs[i]});
    check_numel(kOp, "the output", outputs[i].numel(), inputs[i].numel() * getSize());
  }
  Staged from(inputs, Use::kRead);
  Staged to(outputs, Use::kWrite);
  const int size = getSize();
  const Call call{"hpcore:all_gather_into_tensor",
                  OpType::_ALLGATHER_BASE,
                  options.timeout,
                  options.asyncOp,
                  inputs,
                  outputs};
  return submit(call, [from, to, size](Communicator& communicator, const Limits& limits) mutable {
    for (size_t i = 0; i < from.contiguous().size(); ++i) {
      const at::Tensor& in = from.contiguous()[i];
      const DType wire = wire_type(in.scalar_type());
      const auto out = torch_binding::split(to.contiguous()[i], size, wire);
      HPCORE_RETURN_IF_ERROR(
          communicator.all_gather({in.data_ptr(), in.nbytes() / size_of(wire)}, out, wire, limits));
    }
    to.copy_back();
    return Status();
  });
}

// outputs[rank][i] receives that rank's inputs[i].
WorkPtr HpcoreBackend::allgather_coalesced(std::vector<Tensors>& outputs, Tensors& inputs,
                                           const c10d::AllgatherOptions& options) {
  constexpr const char* kOp = "allgather_coalesced";
  check_numel(kOp, "the list of output lists", static_cast<int64_t>(outputs.size()), getSize());
  check_tensors(kOp, inputs);
  Tensors all;
  for (const Tensors& list : outputs) {
    check_numel(kOp, "a list of outputs", static_cast<int64_t>(list.size()),
                static_cast<int64_t>(inputs.size()));
    check_tensors(kOp, list);
    all.insert(all.end(), list.begin(), list.end());
  }
  Staged from(inputs, Use::kRead);
  Staged to(all, Use::kWrite);
  const size_t size = outputs.size();
  const Call call{"hpcore:all_gather_coalesced",
                  OpType::ALLGATHER_COALESCED,
                  options.timeout,
                  options.asyncOp,
                  inputs,
                  all};
  return submit(call, [from, to, size](Communicator& communicator, const Limits& limits) mutable {
    const size_t count = from.contiguous().size();
    for (size_t i = 0; i < count; ++i) {
      const at::Tensor& in = from.contiguous()[i];
      const DType wire = wire_type(in.scalar_type());
      std::vector<collective::Buffer> out;
      for (size_t rank = 0; rank < size; ++rank) {
        const at::Tensor& tensor = to.contiguous()[rank * count + i];
        out.push_back({tensor.data_ptr(), tensor.nbytes() / size_of(wire)});
      }
      HPCORE_RETURN_IF_ERROR(
          communicator.all_gather({in.data_ptr(), in.nbytes() / size_of(wire)}, out, wire, limits));
    }
    to.copy_back();
    return Status();
  });
}

WorkPtr HpcoreBackend::gather(std::vector<Tensors>& outputs, Tensors& inputs,
                              const c10d::GatherOptions& options) {
  constexpr const char* kOp = "gather";
  check_one(kOp, inputs.size(), "input tensor");
  check_tensors(kOp, inputs);
  const int root = static_cast<int>(options.rootRank);
  Tensors all;
  if (root == getRank()) {
    check_one(kOp, outputs.size(), "list of output tensors");
    check_per_rank(kOp, "the list of outputs", outputs[0], getSize());
    check_alike(kOp, {inputs[0], outputs[0][0]});
    all = outputs[0];
  }
  const DType wire = wire_type(inputs[0].scalar_type());
  Staged from(inputs, Use::kRead);
  Staged to(all, Use::kWrite);
  const Call call{"hpcore:gather", OpType::GATHER, options.timeout, options.asyncOp, inputs, all};
  return submit(
      call, [from, to, wire, root](Communicator& communicator, const Limits& limits) mutable {
        const auto out = to.buffers(wire);
        HPCORE_RETURN_IF_ERROR(communicator.gather(from.buffers(wire)[0], out, wire, root, limits));
        to.copy_back();
        return Status();
      });
}

WorkPtr HpcoreBackend::scatter(Tensors& outputs, std::vector<Tensors>& inputs,
                               const c10d::ScatterOptions& options) {
  constexpr const char* kOp = "scatter";
  check_one(kOp, outputs.size(), "output tensor");
  check_tensors(kOp, outputs);
  const int root = static_cast<int>(options.rootRank);
  Tensors all;
  if (root == getRank()) {
    check_one(kOp, inputs.size(), "list of input tensors");
    check_per_rank(kOp, "the list of inputs", inputs[0], getSize());
    check_alike(kOp, {outputs[0], inputs[0][0]});
    all = inputs[0];
  }
  const DType wire = wire_type(outputs[0].scalar_type());
  Staged from(all, Use::kRead);
  Staged to(outputs, Use::kWrite);
  const Call call{"hpcore:scatter", OpType::SCATTER, options.timeout, options.asyncOp, all,
                  outputs};
  return submit(
      call, [from, to, wire, root](Communicator& communicator, const Limits& limits) mutable {
        const auto in = from.buffers(wire);
        HPCORE_RETURN_IF_ERROR(communicator.scatter(in, to.buffers(wire)[0], wire, root, limits));
        to.copy_back();
        return Status();
      });
}

WorkPtr HpcoreBackend::alltoall(Tensors& outputs, Tensors& inputs,
                                const c10d::AllToAllOptions& options) {
  constexpr const char* kOp = "alltoall";
  check_per_rank(kOp, "the list of outputs", outputs, getSize());
  check_per_rank(kOp, "the list of inputs", inputs, getSize());
  check_alike(kOp, {inputs[0], outputs[0]});
  const DType wire = wire_type(inputs[0].scalar_type());
  Staged from(inputs, Use::kRead);
  Staged to(outputs, Use::kWrite);
  const Call call{"hpcore:all_to_all", OpType::ALLTOALL, options.timeout,
                  options.asyncOp,     inputs,           outputs};
  return submit(call, [from, to, wire](Communicator& communicator, const Limits& limits) mutable {
    const auto in = from.buffers(wire);
    const auto out = to.buffers(wire);
    HPCORE_RETURN_IF_ERROR(communicator.all_to_all(in, out, wire, limits));
    to.copy_back();
    return Status();
  });
}

WorkPtr HpcoreBackend::alltoall_base(at::Tensor& output, at::Tensor& input,
                                     std::vector<int64_t>& output_splits,
                                     std::vector<int64_t>& input_splits,
                                     const c10d::AllToAllOptions& options) {
  constexpr const char* kOp = "all_to_all_single";
  check_alike(kOp, {input, output});
  const DType wire = wire_type(input.scalar_type());
  Staged from({input}, Use::kRead);
  Staged to({output}, Use::kWrite);
  const auto in = torch_binding::split(kOp, from.contiguous()[0], getSize(), input_splits, wire);
  const auto out = torch_binding::split(kOp, to.contiguous()[0], getSize(), output_splits, wire);
  const Call call{"hpcore:all_to_all_single",
                  OpType::ALLTOALL_BASE,
                  options.timeout,
                  options.asyncOp,
                  {input},
                  {output}};
  return submit(
      call, [from, to, in, out, wire](Communicator& communicator, const Limits& limits) mutable {
        HPCORE_RETURN_IF_ERROR(communicator.all_to_all(in, out, wire, limits));
        to.copy_back();
        return Status();
      });
}

WorkPtr HpcoreBackend::barrier(const c10d::BarrierOptions& options) {
  const Call call{"hpcore:barrier", OpType::BARRIER, options.timeout, options.asyncOp, {}, {}};
  return submit(call, [](Communicator& communicator, const Limits& limits) {
    return communicator.barrier(limits);
  });
}

// Every barrier names all missing ranks in its error, on every rank.
void HpcoreBackend::monitoredBarrier(const c10d::BarrierOptions& options, bool /*wait_all_ranks*/) {
  c10d::BarrierOptions blocking = options;
  blocking.asyncOp = false;
  barrier(blocking)->wait();
}

}  // namespace hpcore::torch_binding
