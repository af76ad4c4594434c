// Torch 2.14's reconfigure: the group moves in place to another membership, and in a job to another
// generation. The members agree through the store: new rank 0 publishes the list of members, which
// all others compare with theirs, and its memory; a barrier then sees that all have come. Until the
// members agree the old group is left alone; from there on its operations are cut short.
#include "torch/backend.hpp"

#if HPCORE_TORCH_MINOR >= 14

#include <algorithm>
#include <set>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>

#include "torch/error.hpp"
#include "torch/store.hpp"
#include "torch/without_gil.hpp"

namespace hpcore::torch_binding {
namespace {

constexpr const char* kOp = "reconfigure";
constexpr const char* kMembers = "members";  // keys, below a prefix of this reconfigure's own
constexpr const char* kClaims = "claims/";

using Members = std::vector<MemberHandle>;

Members members_of(const c10d::ReconfigureOptions& options) {
  Members members;
  std::visit(
      [&members](const auto& handles) {
        for (const auto& handle : handles) members.push_back(MemberHandle::parse(handle));
      },
      options.handles);
  if (members.empty()) invalid(kOp, "no handles: one for each member of the new group is needed");
  if (options.handles.index() == 0) {  // a set leaves the ranks to us
    std::sort(members.begin(), members.end(), [](const auto& a, const auto& b) {
      return std::tie(a.stable_rank, a.identity) < std::tie(b.stable_rank, b.identity);
    });
  }
  std::set<std::string> seen;
  for (const MemberHandle& member : members) {
    if (!seen.insert(member.identity).second) {
      invalid(kOp, "the member of handle " + member.text() + " is there twice");
    }
  }
  return members;
}

int place_of(const MemberHandle& own, const Members& members) {
  for (size_t rank = 0; rank < members.size(); ++rank) {
    if (members[rank].identity != own.identity) continue;
    if (members[rank].uuid == own.uuid) return static_cast<int>(rank);
    invalid(kOp, "handle " + members[rank].text() + " is out of date: this member's is " +
                     own.text() + " now. Exchange handles anew after each reconfigure");
  }
  invalid(kOp, "this member's handle " + own.text() + " is not among the " +
                   std::to_string(members.size()) + " of the new group");
}

std::string list_of(const Members& members) {
  std::string list;
  for (const MemberHandle& member : members) list += member.text() + "\n";
  return list;
}

// The generation that a job's group moves to.
uint64_t generation_of(const Group::Facts& facts, const c10d::ReconfigureOptions& options) {
  uint64_t generation = facts.worker ? facts.worker->segment()->board_generation() : 0;
  for (const auto& [name, value] : options.hints) {
    const bool number = !value.empty() && value.size() < 19 &&
                        value.find_first_not_of("0123456789") == std::string::npos;
    if (name != "generation" || !facts.worker || !number) {
      invalid(kOp, "hint " + name + "=" + value +
                       ": the one hint there is, generation=<number>, is for jobs of hpcore run");
    }
    generation = std::stoull(value);
  }
  if (!facts.worker) return facts.generation;
  if (generation == 0 || facts.worker->revoked(generation)) {
    raise({Code::kRevoked, "reconfigure of group '" + facts.name + "': generation " +
                               std::to_string(generation) +
                               " is over or not yet there. Wait for the next roster, exchange "
                               "handles, then reconfigure"});
  }
  return generation;
}

// A job's keys belong to its generation and go with it; elsewhere the group's first store is used.
c10::intrusive_ptr<c10d::Store> meeting_store(const Group::Facts& facts,
                                              const c10::intrusive_ptr<c10d::Store>& first,
                                              int64_t uuid, std::chrono::milliseconds timeout) {
  const std::string number = std::to_string(uuid);
  if (!facts.worker) return c10::make_intrusive<c10d::PrefixStore>("reconfigure/" + number, first);
  const auto& segment = facts.worker->segment();
  const auto area = segment->store_area();
  auto store = check(SharedStore::attach(area.data(), area.size(), segment));
  return c10::make_intrusive<HpcoreStore>(
      std::move(store),
      "c10d/g" + std::to_string(facts.generation) + "/reconfigure/" + facts.name + "/" + number +
          "/",
      std::make_shared<RevocationInterrupt>(facts.revocation, facts.generation), timeout);
}

void agree(c10d::Store& store, const Group::Facts& facts, const std::string& list, int64_t uuid,
           TimePoint deadline) {
  const std::string what = "reconfigure " + std::to_string(uuid) + " of group '" + facts.name + "'";
  if (store.add(kClaims + std::to_string(facts.rank), 1) != 1) {
    raise({Code::kInvalid, what + ": this uuid was already used for rank " +
                               std::to_string(facts.rank) +
                               ". Agree on a fresh one, and give all members the same list"});
  }
  if (facts.rank == 0) {
    store.set(kMembers, std::vector<uint8_t>(list.begin(), list.end()));
    return;
  }
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
  try {
    store.wait({kMembers}, std::max(left, std::chrono::milliseconds(1)));
  } catch (const std::exception& error) {  // whatever kind of store it is
    if (facts.revocation->revoked(facts.generation)) throw;
    raise({Code::kTimeout, what + ": missing rank 0, which has not come (this is rank " +
                               std::to_string(facts.rank) + " of " + std::to_string(facts.size) +
                               "): " + error.what()});
  }
  const std::vector<uint8_t> theirs = store.get(kMembers);
  if (list != std::string(theirs.begin(), theirs.end())) {
    raise({Code::kMismatch, what + ": rank 0 was given other handles:\n" +
                                std::string(theirs.begin(), theirs.end()) + "and rank " +
                                std::to_string(facts.rank) + ":\n" + list +
                                "Give all members the same list and a uuid that is not used yet"});
  }
}

}  // namespace

c10d::ReconfigureHandle HpcoreBackend::get_reconfigure_handle() const { return handle_.text(); }

WorkPtr HpcoreBackend::reconfigure(const c10d::ReconfigureOptions& options) {
  const Members members = members_of(options);
  const auto timeout = chosen(options.timeout.value_or(c10d::kUnsetTimeout));
  const TimePoint deadline = Clock::now() + timeout;
  Group::Facts facts = group()->facts();
  facts.rank = place_of(handle_, members);
  facts.size = static_cast<int>(members.size());
  facts.global_ranks.clear();
  for (const MemberHandle& member : members) facts.global_ranks.push_back(member.stable_rank);
  facts.rehearsal = facts.waiting = false;
  facts.generation = generation_of(facts, options);
  without_gil([&] {
    facts.store = meeting_store(facts, first_store_, options.uuid, timeout);
    agree(*facts.store, facts, list_of(members), options.uuid, deadline);
    move_to(facts, deadline);
  });
  handle_.uuid = options.uuid;
  auto work = c10::make_intrusive<HpcoreWork>(HpcoreWork::Facts{
      getRank(), c10d::OpType::UNKNOWN, "hpcore:reconfigure", 0, {}, {}, {}, timeout});
  work->complete(Status());
  return work;
}

void HpcoreBackend::move_to(const Group::Facts& facts, TimePoint deadline) {
  group()->abort();
  executor_.finish();
  auto next = std::make_shared<Group>(facts);
  auto communicator = next->communicator(deadline);
  const Status met =
      communicator.ok() ? communicator.value()->barrier({deadline}) : communicator.status();
  if (!met.ok()) {
    next->abort();
    raise(met);
  }
  if (facts.rank == 0) {  // all have read them; the claims stay, against a second use of the uuid
    facts.store->deleteKey(kMembers);
    facts.store->deleteKey(Group::kWhere);
  }
  {
    const std::lock_guard lock(group_mutex_);
    group_ = std::move(next);
  }
  rank_ = facts.rank;
  size_ = facts.size;
  sequence_ = 0;
  if (facts.recorder) {
    recorded_ = facts.recorder->new_group(facts.name, facts.global_ranks);
  }
  options_->global_ranks_in_group.assign(facts.global_ranks.begin(), facts.global_ranks.end());
  {
    const std::lock_guard lock(coalescing_mutex_);
    coalescing_ = false;
    coalesced_.clear();
  }
  executor_.reopen();
}

}  // namespace hpcore::torch_binding

#endif
