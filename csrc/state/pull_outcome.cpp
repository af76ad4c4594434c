// How a pull ended, in words and figures.
#include <set>

#include "state/pull.hpp"

namespace hpcore::state {
namespace {

void add_note(std::string* notes, const std::string& note) {
  if (!note.empty()) *notes += (notes->empty() ? "" : "; ") + note;
}

}  // namespace

void Pull::fail(Status status) {
  const std::scoped_lock lock(mutex_);
  if (failure_.ok()) failure_ = std::move(status);
  failed_.store(true, std::memory_order_release);
}

Status Pull::no_source_left() {
  std::string message = std::to_string(progress_bytes_->load()) + " of " +
                        std::to_string(regions_.bytes()) +
                        " bytes of the state were read, the rest can be read from no source:";
  Code code = Code::kUnsupported;
  const std::scoped_lock lock(mutex_);
  for (size_t i = 0; i < sources_.size(); ++i) {
    const Status& trouble = sources_[i].trouble;
    message += " slot " + std::to_string(options_.sources[i].slot) + ": " + trouble.message() + ";";
    if (trouble.code() != Code::kUnsupported) code = Code::kPeerDead;
  }
  return {code, message};
}

Status Pull::corrupt(uint64_t chunk, const std::string& tried) {
  const uint64_t offset = chunk * chunk_bytes_;
  return {Code::kCorrupt,
          "chunk " + std::to_string(chunk) + " (bytes " + std::to_string(offset) + " to " +
              std::to_string(offset + chunk_bytes(chunk)) + " of the state, from region " +
              std::to_string(regions_.region_at(offset)) + " on) matches the digest of slot " +
              std::to_string(options_.sources[publisher(chunk)].slot) +
              " from no source; read from slots " + tried +
              ". The state changed while it was served, or replicas differ"};
}

Status Pull::deadline_passed() {
  std::set<int> slots;
  for (const uint64_t chunk : pending_) slots.insert(options_.sources[publisher(chunk)].slot);
  std::string missing;
  for (const int slot : slots) missing += (missing.empty() ? "" : ", ") + std::to_string(slot);
  return {Code::kTimeout,
          "pulling the state timed out: " + std::to_string(progress_bytes_->load()) + " of " +
              std::to_string(regions_.bytes()) + " bytes read, " + std::to_string(pending_.size()) +
              " chunks lack the digests of slots [" + missing + "]"};
}

Result<PullStats> Pull::outcome(TimePoint begin) {
  if (proved_.load() < chunks_) {
    if (revoked()) {
      return Status(Code::kRevoked, "generation " + std::to_string(options_.generation) +
                                        " was revoked while the state was pulled");
    }
    return failed_.load() ? failure_ : deadline_passed();
  }
  PullStats stats;
  stats.bytes = regions_.bytes();
  stats.chunks = chunks_;
  stats.refetched = refetched_.load();
  stats.reread = reread_.load();
  stats.moved = work_->moved();
  stats.notes = notes_;
  std::set<std::string> methods;
  for (size_t i = 0; i < sources_.size(); ++i) {
    const Source& source = sources_[i];
    stats.bytes_by_source.push_back(source.bytes.load());
    if (source.memory) {
      methods.insert(source.memory->method());
      add_note(&stats.notes, source.memory->note());
    }
    if (source.trouble.ok()) continue;
    add_note(&stats.notes,
             "slot " + std::to_string(options_.sources[i].slot) + ": " + source.trouble.message());
  }
  for (const std::string& method : methods)
    stats.method += (stats.method.empty() ? "" : "+") + method;
  stats.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  return stats;
}

}  // namespace hpcore::state
