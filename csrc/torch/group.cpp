#include "torch/group.hpp"

#include "torch/error.hpp"

namespace hpcore::torch_binding {
namespace {

using collective::Channel;
using collective::Communicator;
using collective::SharedGroup;

}  // namespace

Status RevocationInterrupt::check() const {
  if (!revocation_->revoked(generation_)) return {};
  return {Code::kRevoked,
          "generation " + std::to_string(generation_) +
              " is over: a rank was lost, joined or left (seen while waiting for the store)"};
}

Status generation_over(const std::string& group, uint64_t generation) {
  return {Code::kRevoked, "generation " + std::to_string(generation) + " of group '" + group +
                              "' is over: a rank was lost, joined or left. Make a new group"};
}

Status group_ended(const std::string& group) {
  return {Code::kAborted, "group '" + group + "' was aborted or shut down by this process"};
}

Group::Group(Facts facts) : facts_(std::move(facts)) {
  if (!facts_.rehearsal && !facts_.waiting && facts_.rank == 0) check(create_memory());
}

Status Group::create_memory() {
  const size_t least = collective::AreaLayout::least_bytes(facts_.size);
  const size_t area_bytes = std::max(facts_.budget->next_area(), least);
  auto memory = SharedGroup::create(facts_.size, area_bytes);
  if (!memory.ok()) return memory.status();
  memory_ = std::move(memory.value());
  lease_ = BudgetLease(facts_.budget, area_bytes);
  const std::string address = memory_->address();
  facts_.store->set(kWhere, std::vector<uint8_t>(address.begin(), address.end()));
  return {};
}

Status Group::find_memory(TimePoint deadline) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
  std::vector<uint8_t> address;
  try {
    facts_.store->wait({kWhere}, std::max(left, std::chrono::milliseconds(1)));
    address = facts_.store->get(kWhere);
  } catch (const std::exception& error) {  // whatever kind of store it is
    HPCORE_RETURN_IF_ERROR(standing());
    return {Code::kTimeout, "group '" + facts_.name +
                                "': missing rank 0, which has not made the group's memory " +
                                "(this is rank " + std::to_string(facts_.rank) + " of " +
                                std::to_string(facts_.size) + "): " + error.what()};
  }
  auto memory = SharedGroup::open(std::string(address.begin(), address.end()));
  if (memory.status().code() == Code::kNotFound) {
    return {Code::kPeerDead, "rank 0 of group '" + facts_.name + "' cannot be reached: " +
                                 memory.status().message() + " (hpcore groups are for one node)"};
  }
  if (!memory.ok()) return memory.status();
  memory.value()->drop_descriptor();
  const std::lock_guard lock(mutex_);
  memory_ = std::move(memory.value());
  lease_ = BudgetLease(facts_.budget, memory_->header().area_bytes);
  return {};
}

Status Group::standing() const {
  if (revoked()) return generation_over(facts_.name, facts_.generation);
  if (aborted_) return group_ended(facts_.name);
  if (facts_.waiting) {
    return {Code::kInvalid, "group '" + facts_.name +
                                "' has no members yet: it was made with enable_reconfigure=True. "
                                "Exchange handles and call reconfigure first"};
  }
  return {};
}

Status Group::make_channel() {
  auto memory = memory_->channel_memory(facts_.supervised);
  if (!memory.ok()) return memory.status();
  auto channel =
      Channel::create(std::move(memory.value()), facts_.rank, facts_.generation, facts_.revocation);
  if (!channel.ok()) return channel.status();
  auto communicator = Communicator::create(channel.value());
  if (!communicator.ok()) return communicator.status();
  communicator_ = std::move(communicator.value());
  exchange_ = std::make_shared<Exchange>(std::move(channel.value()), facts_.name);
  return {};
}

Status Group::connect(TimePoint deadline) {
  const std::lock_guard connecting(connecting_);
  HPCORE_RETURN_IF_ERROR(standing());
  if (communicator_) return {};
  if (!facts_.rehearsal && !memory_) HPCORE_RETURN_IF_ERROR(find_memory(deadline));
  const std::lock_guard lock(mutex_);
  HPCORE_RETURN_IF_ERROR(standing());
  if (!facts_.rehearsal) return make_channel();
  communicator_ = Communicator::rehearsal(facts_.size);
  exchange_ = std::make_shared<Exchange>(nullptr, facts_.name);
  return {};
}

Result<std::shared_ptr<Communicator>> Group::communicator(TimePoint deadline) {
  HPCORE_RETURN_IF_ERROR(connect(deadline));
  const std::lock_guard lock(mutex_);
  return communicator_;
}

Result<std::shared_ptr<Exchange>> Group::exchange(TimePoint deadline) {
  HPCORE_RETURN_IF_ERROR(connect(deadline));
  const std::lock_guard lock(mutex_);
  return exchange_;
}

// A group's errors count its members from 0; logs and other groups know them by other numbers.
Status Group::with_global_ranks(Status status) const {
  const auto code = status.code();
  if (code != Code::kTimeout && code != Code::kPeerDead && code != Code::kMismatch) return status;
  std::string named;
  bool same = true;
  for (size_t i = 0; i < facts_.global_ranks.size(); ++i) {
    const int64_t rank = facts_.global_ranks[i];
    named += (i == 0 ? "" : ", ") + std::to_string(rank);
    same = same && rank == static_cast<int64_t>(i);
  }
  if (same) return status;
  return {code, status.message() + ". Members 0, 1, ... of group '" + facts_.name +
                    "' are the global ranks " + named};
}

Status Group::with_flight(Status status) const {
  status = with_global_ranks(std::move(status));
  if (status.code() != Code::kTimeout || !facts_.recorder) return status;
  std::string message = status.message();
  const std::string flying = facts_.recorder->in_flight();
  if (!flying.empty()) message += ". In flight here: " + flying;
  const std::vector<int64_t>& ranks = facts_.global_ranks;
  const auto own = static_cast<size_t>(facts_.rank);
  const std::string path =
      facts_.recorder->dump(own < ranks.size() ? static_cast<int>(ranks[own]) : facts_.rank);
  if (!path.empty()) message += ". All recent operations: " + path;
  return {Code::kTimeout, message};
}

void Group::abort() {
  aborted_ = true;
  const std::lock_guard lock(mutex_);
  if (communicator_) communicator_->abort();
  if (exchange_) exchange_->close();
}

}  // namespace hpcore::torch_binding
