// all_gather and gather: each rank's staging carries a stream of its own.
#include "collective/parts.hpp"
#include "collective/rehearsal.hpp"

namespace hpcore::collective {
namespace {

constexpr int kAll = Operation::kAll;

// The rank's own stream, and those of the others into one buffer each.
struct Streams {
  const Operation& op;
  const Buffer& input;
  Buffers outputs;
  size_t element_bytes;

  void fill(uint64_t step, std::byte* to) const {
    const Part p = part_of(step, op.buffer_bytes(), input.elements * element_bytes);
    copy_part(to, bytes_of(input) + p.from, p.bytes);
  }
  void drain(uint64_t step) const {
    for (int other = 0; other < op.size(); ++other) {
      if (other == op.rank()) continue;
      const Buffer& output = outputs[static_cast<size_t>(other)];
      const Part p = part_of(step, op.buffer_bytes(), output.elements * element_bytes);
      copy_part(bytes_of(output) + p.from, op.buffer(other, step), p.bytes);
    }
  }
  void copy_own() const {
    copy_buffer(outputs[static_cast<size_t>(op.rank())], input, element_bytes);
  }
};

}  // namespace

Status Communicator::all_gather(Buffer input, Buffers outputs, DType dtype, const Limits& limits) {
  HPCORE_RETURN_IF_ERROR(check_one_each("all_gather", "output", outputs, size_));
  HPCORE_RETURN_IF_ERROR(
      check_same_size("all_gather", input, outputs[static_cast<size_t>(rank_)], rank_));
  const size_t unit = size_of(dtype);
  if (rehearsing()) {
    for (const Buffer& output : outputs) copy_buffer(output, input, unit);
    return rehearsal_standing(aborted_);
  }
  OpRequest request{OpKind::kAllGather, dtype};
  for (const Buffer& output : outputs) request.elements += output.elements;
  request.split_hash = hash_sizes(outputs);
  Operation op(*this, request, limits);
  HPCORE_RETURN_IF_ERROR(op.begin());
  const Streams streams{op, input, outputs, unit};
  const auto fill = [&](uint64_t step, std::byte* to) { streams.fill(step, to); };
  const auto drain = [&](uint64_t step) { streams.drain(step); };
  const uint64_t steps = steps_for(largest(outputs) * unit, op.buffer_bytes());
  Status outcome = op.meet(true, kAll, fill);
  if (outcome.ok()) outcome = run_steps(op, steps, kAll, kAll, fill, drain);
  if (outcome.ok()) streams.copy_own();
  return op.end(steps, std::move(outcome));
}

Status Communicator::gather(Buffer input, Buffers outputs, DType dtype, int root,
                            const Limits& limits) {
  HPCORE_RETURN_IF_ERROR(check_root("gather", root));
  const bool at_root = rank_ == root;
  if (at_root) HPCORE_RETURN_IF_ERROR(check_one_each("gather", "output", outputs, size_));
  const size_t unit = size_of(dtype);
  if (rehearsing()) {
    for (const Buffer& output : outputs) copy_buffer(output, input, unit);
    return rehearsal_standing(aborted_);
  }
  OpRequest request{OpKind::kGather, dtype, {}, root, input.elements};
  request.same_elements = false;
  Operation op(*this, request, limits);
  HPCORE_RETURN_IF_ERROR(op.begin());
  op.own_sizes()[0] = input.elements;
  for (int rank = 0; at_root && rank < size_; ++rank) {
    op.own_sizes()[1 + rank] = outputs[static_cast<size_t>(rank)].elements;
  }
  const Streams streams{op, input, outputs, unit};
  const auto fill = [&](uint64_t step, std::byte* to) {
    if (!at_root) streams.fill(step, to);
  };
  const auto drain = [&](uint64_t step) { streams.drain(step); };
  size_t most = 0;
  Status outcome = op.meet(true, root, fill);
  if (outcome.ok()) outcome = check_root_sizes(op, root, false, &most);
  const uint64_t steps = steps_for(most * unit, op.buffer_bytes());
  if (outcome.ok()) outcome = run_steps(op, steps, kAll, root, fill, drain);
  if (outcome.ok() && at_root) streams.copy_own();
  return op.end(steps, std::move(outcome));
}

}  // namespace hpcore::collective
