// Purpose: what both sides of the nccl transport agree on. A link is one receiver's way to one
// source: a communicator of two (source 0, receiver 1), so that a peer that dies takes no other
// link with it, and a control connection on which the receiver asks.
//   receiver -> source   hello: the exposure's secret, generation, unique id
//   source -> receiver   welcome, or why not; then both bring NCCL up
//   receiver -> source   request: offset, bytes; both enqueue one group of pieces, the source's
//                        sends and the receiver's receives, in the order of the requests
//   source -> receiver   only what failed
// Unique ids are given by the caller, one for each pair and generation (a roster carries them); the
// source knows which belong to an exposure and refuses others, and each a second time.
// The source's exposure area (layout and digests) is read over a connection of its own, as bytes.
// Threads, ownership: plain values.
#pragma once

#include "transport/control_socket.hpp"
#include "transport/device_lane.hpp"
#include "transport/nccl_comm.hpp"

namespace hpcore::transport {

struct NcclAddress {
  std::string place;   // of the control connection
  std::string secret;  // 16 bytes: who does not know it is not heard
  uint64_t generation = 0;
  uint64_t piece_bytes = 0;  // both sides cut requests so
  std::vector<Region> regions;

  [[nodiscard]] std::string encode() const;
  static Result<NcclAddress> decode(const std::string& bytes);
};

struct NcclOptions {
  LaneOptions lane;
  double setup_limit_s = 10;  // for connection, hello and NCCL's coming up
  std::string host;           // where the source listens for other hosts; empty: this host only
};

// What a receiver says first. 16 bytes of secret, what it wants, 128 bytes of unique id.
struct NcclHello {
  enum class Wants : char { kState = 's', kArea = 'a' };
  std::string secret;
  Wants wants = Wants::kState;
  driver::nccl::UniqueId id{};

  [[nodiscard]] ControlFrame frame(uint64_t generation) const;
  static NcclHello of(const ControlFrame& frame);
};

Result<driver::nccl::UniqueId> nccl_unique_id(const std::string& bytes);

}  // namespace hpcore::transport
