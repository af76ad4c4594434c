// NodeSegment: what one rank alone knows, two blobs a rank. A writer that is killed in mid-write
// leaves the other one whole; a late writer (a rank that was let go while it wrote) and the rank's
// new holder may spoil one blob together, which the checksum finds.
#include <algorithm>

#include "base/digest.hpp"
#include "base/shared_copy.hpp"
#include "roster/node_segment.hpp"

namespace hpcore::roster {
namespace {

struct Seen {
  uint64_t sequence = 0;
  uint64_t tag = 0;
  bool whole = false;
};

uint64_t checksum(uint64_t rank, uint64_t tag, const std::string& bytes) {
  const uint64_t about[] = {rank, tag, bytes.size()};
  return crc32c(bytes.data(), bytes.size(), crc32c(about, sizeof about));
}

// Fills `bytes` only if the blob is whole and this rank's.
Seen read_blob(const Blob& blob, uint64_t rank, std::string* bytes) {
  Seen seen{blob.sequence.load(std::memory_order_acquire), blob.tag.load(), false};
  const uint64_t size = blob.size_bytes.load();
  if (seen.sequence == 0 || blob.rank.load() != rank || size > kBlobBytes) return seen;
  std::string copy(size, '\0');
  copy_from_shared(copy.data(), blob.bytes, size);
  std::atomic_thread_fence(std::memory_order_acquire);
  seen.whole = blob.sequence.load() == seen.sequence &&
               blob.checksum.load() == checksum(rank, seen.tag, copy);
  if (seen.whole) *bytes = std::move(copy);
  return seen;
}

// The blob to give up: a broken one; else one of a future that did not come to be (a step that is
// run again writes its tag again); else the older one.
int choose(const Seen& first, const Seen& second, uint64_t tag) {
  if (!first.whole) return 0;
  if (!second.whole) return 1;
  if (first.tag >= tag || second.tag >= tag) return first.tag >= second.tag ? 0 : 1;
  return first.tag < second.tag ? 0 : 1;
}

}  // namespace

Status NodeSegment::set_rank_blob(int rank, uint64_t tag, const std::string& bytes) {
  if (rank < 0) return {Code::kNotFound, "there is no rank " + std::to_string(rank)};
  if (bytes.size() > kBlobBytes) {
    return {Code::kNoSpace, "rank-local state of " + std::to_string(bytes.size()) +
                                " bytes; the limit is " + std::to_string(kBlobBytes) +
                                ": track larger state with job.track"};
  }
  const auto owner = static_cast<uint64_t>(rank);
  std::string ignored;
  const Seen first = read_blob(blob(rank, 0), owner, &ignored);
  const Seen second = read_blob(blob(rank, 1), owner, &ignored);
  Blob& target = blob(rank, choose(first, second, tag));
  target.sequence.store(0);
  std::atomic_thread_fence(std::memory_order_release);
  copy_to_shared(target.bytes, bytes.data(), bytes.size());
  target.rank.store(owner);
  target.tag.store(tag);
  target.size_bytes.store(bytes.size());
  target.checksum.store(checksum(owner, tag, bytes));
  target.sequence.store(std::max(first.sequence, second.sequence) + 1);
  return {};
}

std::vector<TaggedBlob> NodeSegment::rank_blob(int rank) const {
  std::vector<std::pair<uint64_t, TaggedBlob>> found;
  for (int which = 0; which < 2 && rank >= 0; ++which) {
    std::string bytes;
    const Seen seen = read_blob(blob(rank, which), static_cast<uint64_t>(rank), &bytes);
    if (seen.whole) found.emplace_back(seen.sequence, TaggedBlob{seen.tag, std::move(bytes)});
  }
  std::sort(found.begin(), found.end(), [](auto& a, auto& b) { return a.first > b.first; });
  std::vector<TaggedBlob> blobs;
  for (auto& entry : found) blobs.push_back(std::move(entry.second));
  return blobs;
}

}  // namespace hpcore::roster
