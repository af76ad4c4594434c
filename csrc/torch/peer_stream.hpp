// Purpose: the two byte streams between this process and one other member: a ring in each one's
// memory. Threads: externally synchronised; the other process uses its ends at the same time.
// Ownership: a view of the channel's memory, which must outlive it. Lifecycle: the words carry the
// generation, so that what an older generation left counts as nothing.
#pragma once

#include <algorithm>
#include <cstring>

#include "collective/channel.hpp"

namespace hpcore::torch_binding {

class PeerStream {
 public:
  PeerStream(const collective::Channel& channel, int peer)
      : channel_(&channel), peer_(peer), ring_bytes_(channel.ring_bytes()) {
    const auto me = static_cast<size_t>(channel.index());
    const auto it = static_cast<size_t>(peer);
    my_sent_ = &channel.own().sent[it].word;
    its_received_ = &channel.control(peer).received[me].word;
    its_sent_ = &channel.control(peer).sent[me].word;
    my_received_ = &channel.own().received[it].word;
    out_ = channel.member(channel.index()).rings + ring_bytes_ * it;
    in_ = channel.member(peer).rings + ring_bytes_ * me;
  }

  [[nodiscard]] size_t room() const { return ring_bytes_ - (sent_ - count(*its_received_)); }
  [[nodiscard]] size_t available() const { return count(*its_sent_) - received_; }

  // At most room() bytes.
  void put(const void* bytes, size_t size) {
    const auto* from = static_cast<const std::byte*>(bytes);
    each(sent_, size,
         [&](size_t at, size_t n, size_t done) { std::memcpy(out_ + at, from + done, n); });
    sent_ += size;
    publish(*my_sent_, sent_);
  }
  // At most available() bytes; bytes == nullptr throws them away.
  void take(void* bytes, size_t size) {
    auto* to = static_cast<std::byte*>(bytes);
    each(received_, size, [&](size_t at, size_t n, size_t done) {
      if (to != nullptr) std::memcpy(to + done, in_ + at, n);
    });
    received_ += size;
    publish(*my_received_, received_);
  }

 private:
  template <typename Copy>
  void each(uint64_t position, size_t size, Copy copy) const {
    for (size_t done = 0; done < size;) {
      const size_t at = (position + done) % ring_bytes_;
      const size_t n = std::min(size - done, ring_bytes_ - at);
      copy(at, n, done);
      done += n;
    }
  }
  [[nodiscard]] uint64_t count(const collective::StampWord& word) const {
    const uint64_t stamped = word.load(std::memory_order_acquire);
    return collective::generation_of(stamped) == channel_->generation()
               ? collective::count_of(stamped)
               : 0;
  }
  void publish(collective::StampWord& word, uint64_t count) const {
    word.store(collective::stamp(channel_->generation(), count), std::memory_order_release);
    channel_->ring(peer_);
  }

  const collective::Channel* channel_;
  int peer_;
  size_t ring_bytes_;
  collective::StampWord *my_sent_, *my_received_;
  const collective::StampWord *its_sent_, *its_received_;
  std::byte* out_;
  const std::byte* in_;
  uint64_t sent_ = 0;
  uint64_t received_ = 0;
};

}  // namespace hpcore::torch_binding
