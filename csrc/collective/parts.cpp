#include "collective/parts.hpp"

namespace hpcore::collective {
namespace {

Status sizes_differ(const Operation& op, int from, uint64_t sent, int to, uint64_t expected) {
  return op.mismatch("in " + op.describe() + ", rank " + std::to_string(from) + " sends " +
                     std::to_string(sent) + " elements to rank " + std::to_string(to) +
                     ", which expects " + std::to_string(expected));
}

}  // namespace

Status check_one_each(const char* what, const char* which, Buffers buffers, int ranks) {
  if (buffers.size() == static_cast<size_t>(ranks)) return {};
  return {Code::kInvalid, std::string(what) + " needs one " + which + " for each of the " +
                              std::to_string(ranks) + " ranks, not " +
                              std::to_string(buffers.size())};
}

Status check_same_size(const char* what, const Buffer& one, const Buffer& other, int rank) {
  if (one.elements == other.elements) return {};
  return {Code::kInvalid, std::string(what) + ": the part that rank " + std::to_string(rank) +
                              " keeps for itself has " + std::to_string(one.elements) +
                              " elements on one side and " + std::to_string(other.elements) +
                              " on the other"};
}

Status check_root_sizes(Operation& op, int root, bool root_sends, size_t* most) {
  const uint64_t* table = op.sizes_of(root) + 1;
  for (int rank = 0; rank < op.size(); ++rank) {
    const uint64_t own = op.sizes_of(rank)[0];
    *most = std::max<size_t>(*most, table[rank]);
    if (own == table[rank]) continue;
    return root_sends ? sizes_differ(op, root, table[rank], rank, own)
                      : sizes_differ(op, rank, own, root, table[rank]);
  }
  return {};
}

Status check_pair_sizes(Operation& op, size_t* most) {
  for (int from = 0; from < op.size(); ++from) {
    for (int to = 0; to < op.size(); ++to) {
      const uint64_t sent = op.sizes_of(from)[to];
      const uint64_t expected = op.sizes_of(to)[op.size() + from];
      *most = std::max<size_t>(*most, sent);
      if (sent != expected) return sizes_differ(op, from, sent, to, expected);
    }
  }
  return {};
}

}  // namespace hpcore::collective
