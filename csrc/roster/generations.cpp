// NodeSegment: opening and closing generations. See commit_word.hpp for why all observers agree.
#include <algorithm>

#include "roster/commit_word.hpp"
#include "roster/life_word.hpp"
#include "roster/node_segment.hpp"

namespace hpcore::roster {
namespace {

void raise_to(std::atomic<uint64_t>& word, uint64_t value) {
  uint64_t seen = word.load(std::memory_order_relaxed);
  while (seen < value && !word.compare_exchange_weak(seen, value)) {
  }
}

Status no_slot(int slot, int slots) {
  return {Code::kNotFound, "there is no slot " + std::to_string(slot) + ": the segment has " +
                               std::to_string(slots)};
}

}  // namespace

Status NodeSegment::set_ranked(const std::vector<int>& slots) {
  uint64_t mask = 0;
  for (const int slot : slots) {
    if (!has_slot(slot)) return no_slot(slot, this->slots());
    if ((mask >> static_cast<unsigned>(slot) & 1) != 0) {
      return {Code::kInvalid, "slot " + std::to_string(slot) + " cannot hold two ranks"};
    }
    mask |= 1ULL << static_cast<unsigned>(slot);
  }
  for (size_t rank = 0; rank < slots.size(); ++rank)
    header().ranked_order[rank].store(static_cast<uint8_t>(slots[rank]));
  header().ranked_count.store(static_cast<uint32_t>(slots.size()));
  header().ranked_mask.store(mask);
  return {};
}

std::vector<int> NodeSegment::ranked() const {
  std::vector<int> slots(header().ranked_count.load());
  for (size_t rank = 0; rank < slots.size(); ++rank)
    slots[rank] = header().ranked_order[rank].load();
  return slots;
}

bool NodeSegment::is_ranked(int slot) const {
  return (header().ranked_mask.load() >> static_cast<unsigned>(slot) & 1) != 0;
}

Status NodeSegment::open_commit(const std::vector<int>& slots, uint64_t generation, uint64_t steps,
                                bool peers) {
  if (generation == 0 || generation >= CommitWord::kGenerationLimit ||
      steps > CommitWord::kStepsMask) {
    return {Code::kInvalid, "generation " + std::to_string(generation) + " or steps " +
                                std::to_string(steps) +
                                " do not fit a commit word (23 and 40 bits)"};
  }
  for (const int slot : slots) {
    if (!has_slot(slot)) return no_slot(slot, this->slots());
    const uint64_t held = look(this->slot(slot).commit).generation;
    if (held >= generation) {
      return {Code::kInvalid, "slot " + std::to_string(slot) + " is already in generation " +
                                  std::to_string(held) + "; cannot open " +
                                  std::to_string(generation)};
    }
  }
  for (int slot = 0; slot < this->slots(); ++slot) {  // nothing older may stay open
    const CommitWord word = look(this->slot(slot).commit);
    if (word.generation != 0 && word.generation < generation) close_commits(word.generation);
  }
  header().peers.store(
      CommitWord{generation, false, peers ? steps : CommitWord::kStepsMask}.pack());
  for (const int slot : slots)
    this->slot(slot).commit.store(CommitWord{generation, false, steps}.pack());
  return {};
}

bool NodeSegment::advance_peers(uint64_t generation, uint64_t steps) {
  uint64_t seen = header().peers.load();
  for (;;) {
    const CommitWord word = CommitWord::unpack(seen);
    if (word.generation != generation || word.closed) return false;
    if (word.steps >= steps) return true;
    if (header().peers.compare_exchange_weak(seen, CommitWord{generation, false, steps}.pack()))
      break;
  }
  ring_all_slots();
  return true;
}

void NodeSegment::settle(uint64_t generation, uint64_t steps) {
  write_ledger(generation, steps);
  ring_all_slots();
}

void NodeSegment::write_ledger(uint64_t generation, uint64_t steps) {
  std::atomic<uint64_t>& entry = header().ledger[generation % kLedgerEntries];
  uint64_t seen = entry.load();
  while (CommitWord::unpack(seen).generation < generation) {
    if (entry.compare_exchange_weak(seen, CommitWord{generation, true, steps}.pack())) break;
  }
}

std::optional<uint64_t> NodeSegment::committed_steps(uint64_t generation) const {
  const CommitWord entry = look(header().ledger[generation % kLedgerEntries]);
  if (!entry.closed || entry.generation != generation) return std::nullopt;
  return entry.steps;
}

// Several may close at once, also for one generation while another of them opens the next: who
// finds fewer words than there were finds the ledger written.
std::optional<uint64_t> NodeSegment::close_commits(uint64_t generation) {
  if (generation == 0) return std::nullopt;
  for (int index = 0; index < slots(); ++index) close_commit(slot(index).commit, generation);
  close_commit(header().peers, generation);
  std::optional<uint64_t> steps;
  for (int index = 0; index < slots(); ++index) {
    const CommitWord word = look(slot(index).commit);
    if (word.generation == generation) steps = std::min(word.steps, steps.value_or(word.steps));
  }
  const CommitWord peers = look(header().peers);
  const bool known = peers.generation != generation || peers.steps >= steps.value_or(0);
  if (steps && known) write_ledger(generation, *steps);
  return committed_steps(generation);
}

std::vector<uint64_t> NodeSegment::close_generation(uint64_t generation) {
  const std::optional<uint64_t> committed = close_commits(generation);
  raise_to(header().revoked_generation, generation);
  wake_board();
  ring_all_slots();
  std::vector<uint64_t> steps;
  for (const int index : ranked()) {
    const CommitWord word = look(slot(index).commit);
    const bool member = word.generation == generation || !committed;
    steps.push_back(member ? word.steps : *committed);
  }
  return steps;
}

void NodeSegment::revoke_if_member_died(int index) {
  const Slot& words = slot(index);
  if (!is_ranked(index) || !owner_died(words.life.load()) ||
      static_cast<WorkerState>(words.state.load()) == WorkerState::kFinished) {
    return;
  }
  close_generation(std::max(board_generation(), look(words.commit).generation));
}

void NodeSegment::ring_all_slots() const {
  for (int index = 0; index < slots(); ++index) slot_doorbell(index).ring();
}

uint64_t NodeSegment::revoked_generation() const { return header().revoked_generation.load(); }

bool NodeSegment::fire_fault(int index) {
  const uint64_t bit = 1ULL << (static_cast<unsigned>(index) & 63U);
  return (header().fault_mask.fetch_or(bit) & bit) == 0;
}

}  // namespace hpcore::roster
