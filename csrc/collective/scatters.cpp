// scatter, reduce_scatter and all_to_all: each staging buffer has one lane per receiver.
#include "collective/kernels.hpp"
#include "collective/parts.hpp"
#include "collective/rehearsal.hpp"

namespace hpcore::collective {
namespace {

constexpr int kAll = Operation::kAll;

}  // namespace

Status Communicator::scatter(Buffers inputs, Buffer output, DType dtype, int root,
                             const Limits& limits) {
  HPCORE_RETURN_IF_ERROR(check_root("scatter", root));
  const bool at_root = rank_ == root;
  if (at_root) HPCORE_RETURN_IF_ERROR(check_one_each("scatter", "input", inputs, size_));
  if (rehearsing()) {
    if (at_root) copy_buffer(output, inputs[static_cast<size_t>(rank_)], size_of(dtype));
    return rehearsal_standing(aborted_);
  }
  OpRequest request{OpKind::kScatter, dtype, {}, root, output.elements};
  request.same_elements = false;
  Operation op(*this, request, limits);
  HPCORE_RETURN_IF_ERROR(op.begin());
  op.own_sizes()[0] = output.elements;
  for (int rank = 0; at_root && rank < size_; ++rank) {
    op.own_sizes()[1 + rank] = inputs[static_cast<size_t>(rank)].elements;
  }
  const Lanes lanes{op, size_of(dtype)};
  const auto fill = [&](uint64_t step, std::byte* to) { lanes.fill(inputs, step, to); };
  const auto drain = [&](uint64_t step) {
    if (!at_root) lanes.drain(root, step, output);
  };
  size_t most = 0;
  Status outcome = op.meet(at_root, kAll, fill);
  if (outcome.ok()) outcome = check_root_sizes(op, root, true, &most);
  if (outcome.ok()) outcome = run_steps(op, lanes.steps(most), root, kAll, fill, drain);
  if (outcome.ok() && at_root) {
    copy_buffer(output, inputs[static_cast<size_t>(root)], size_of(dtype));
  }
  return op.end(lanes.steps(most), std::move(outcome));
}

Status Communicator::reduce_scatter(Buffers inputs, Buffer output, DType dtype, Reduction reduction,
                                    const Limits& limits) {
  HPCORE_RETURN_IF_ERROR(check_one_each("reduce_scatter", "input", inputs, size_));
  const Buffer own = inputs[static_cast<size_t>(rank_)];
  HPCORE_RETURN_IF_ERROR(check_same_size("reduce_scatter", output, own, rank_));
  const ReduceKernel kernel = find_kernel(dtype, reduction.op);
  if (kernel == nullptr) return no_such_reduction(dtype, reduction.op);
  if (rehearsing()) {
    copy_buffer(output, own, size_of(dtype));
    return rehearsal_standing(aborted_);
  }
  OpRequest request{OpKind::kReduceScatter, dtype, reduction};
  for (const Buffer& input : inputs) request.elements += input.elements;
  request.split_hash = hash_sizes(inputs);
  Operation op(*this, request, limits);
  HPCORE_RETURN_IF_ERROR(op.begin());
  const Lanes lanes{op, size_of(dtype)};
  const auto fill = [&](uint64_t step, std::byte* to) { lanes.fill(inputs, step, to); };
  const auto drain = [&](uint64_t step) {
    const Part p = lanes.part(step, own);
    const void* sources[kMaxMembers];
    for (int other = 0; other < size_; ++other) sources[other] = lanes.from(other, step);
    sources[rank_] = bytes_of(own) + p.from;
    kernel(bytes_of(output) + p.from, sources, size_, p.bytes / size_of(dtype),
           {reduction.factor, size_});
  };
  const uint64_t steps = lanes.steps(largest(inputs));
  Status outcome = op.meet(true, kAll, fill);
  if (outcome.ok()) outcome = run_steps(op, steps, kAll, kAll, fill, drain);
  return op.end(steps, std::move(outcome));
}

Status Communicator::all_to_all(Buffers inputs, Buffers outputs, DType dtype,
                                const Limits& limits) {
  HPCORE_RETURN_IF_ERROR(check_one_each("all_to_all", "input", inputs, size_));
  HPCORE_RETURN_IF_ERROR(check_one_each("all_to_all", "output", outputs, size_));
  const auto me = static_cast<size_t>(rank_);
  HPCORE_RETURN_IF_ERROR(check_same_size("all_to_all", inputs[me], outputs[me], rank_));
  if (rehearsing()) {
    for (const Buffer& output : outputs) copy_buffer(output, inputs[me], size_of(dtype));
    return rehearsal_standing(aborted_);
  }
  OpRequest request{OpKind::kAllToAll, dtype};
  for (const Buffer& input : inputs) request.elements += input.elements;
  request.same_elements = false;
  Operation op(*this, request, limits);
  HPCORE_RETURN_IF_ERROR(op.begin());
  uint64_t* sizes = op.own_sizes();
  for (const Buffer& input : inputs) *sizes++ = input.elements;
  for (const Buffer& output : outputs) *sizes++ = output.elements;
  const Lanes lanes{op, size_of(dtype)};
  const auto fill = [&](uint64_t step, std::byte* to) { lanes.fill(inputs, step, to); };
  const auto drain = [&](uint64_t step) {
    for (int other = 0; other < size_; ++other) {
      if (other != rank_) lanes.drain(other, step, outputs[static_cast<size_t>(other)]);
    }
  };
  size_t most = 0;
  Status outcome = op.meet(true, kAll, fill);
  if (outcome.ok()) outcome = check_pair_sizes(op, &most);
  if (outcome.ok()) outcome = run_steps(op, lanes.steps(most), kAll, kAll, fill, drain);
  if (outcome.ok()) copy_buffer(outputs[me], inputs[me], size_of(dtype));
  return op.end(lanes.steps(most), std::move(outcome));
}

}  // namespace hpcore::collective
