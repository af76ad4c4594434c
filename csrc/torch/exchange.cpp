// Moving bytes and matching messages. Who waits, and how requests fail, is in exchange_waits.cpp.
#include "torch/exchange.hpp"

namespace hpcore::torch_binding {

void Exchange::finish(ExchangeRequest& request, Status status, int source, Finishes& finishes) {
  finishes.push_back({std::move(request.done), std::move(status), source});
}

bool Exchange::move_out(Peer& peer, Finishes& finishes) {
  bool moved = false;
  while (!peer.outgoing.empty() && peer.broken.ok()) {
    Outgoing& out = peer.outgoing.front();
    const size_t room = peer.stream.room();
    if (out.sent_bytes == 0) {
      if (room < sizeof(Header)) return moved;
      const Header header{out.request.size_bytes, out.request.tag};
      peer.stream.put(&header, sizeof(header));
      out.sent_bytes = sizeof(Header);
      moved = true;
      continue;
    }
    const size_t at = out.sent_bytes - sizeof(Header);
    const size_t n = std::min(room, out.request.size_bytes - at);
    if (n != 0) {
      peer.stream.put(static_cast<std::byte*>(out.request.data) + at, n);
      out.sent_bytes += n;
      moved = true;
    }
    // Only now may this process leave: the receiver may need it to find the memory until then.
    if (!out.whole() || !channel_->joined(out.request.peer)) return moved;
    finish(out.request, {}, out.request.peer, finishes);
    peer.outgoing.pop_front();
    moved = true;
  }
  return moved;
}

bool Exchange::find_receive(int rank, int64_t tag, ExchangeRequest* found) {
  for (auto it = receives_.begin(); it != receives_.end(); ++it) {
    if ((it->peer == rank || it->peer == ExchangeRequest::kAnySource) && it->tag == tag) {
      *found = std::move(*it);
      receives_.erase(it);
      return true;
    }
  }
  return false;
}

bool Exchange::wanted_from(int rank) const {
  return std::any_of(receives_.begin(), receives_.end(), [rank](const ExchangeRequest& request) {
    return request.peer == rank || request.peer == ExchangeRequest::kAnySource;
  });
}

Status Exchange::size_mismatch(const ExchangeRequest& request, uint64_t got_bytes, int rank) const {
  return {Code::kMismatch, "recv in group '" + name_ + "': the message with tag " +
                               std::to_string(request.tag) + " from rank " + std::to_string(rank) +
                               " has " + std::to_string(got_bytes) + " bytes, the tensor " +
                               std::to_string(request.size_bytes) + ". The message is dropped"};
}

// The header is known: find out where the body goes.
void Exchange::begin_body(int rank, Peer& peer, Finishes& finishes) {
  peer.taken_bytes = 0;
  ExchangeRequest request;
  if (find_receive(rank, peer.header.tag, &request)) {
    if (request.size_bytes == peer.header.size_bytes) {
      peer.into = std::move(request);
      peer.body = Body::kInto;
      return;
    }
    finish(request, size_mismatch(request, peer.header.size_bytes, rank), rank, finishes);
    peer.body = Body::kDrop;
  } else if (wanted_from(rank)) {
    peer.stash.resize(peer.header.size_bytes);
    peer.body = Body::kStash;
  }
}

void Exchange::end_body(int rank, Peer& peer, Finishes& finishes) {
  if (peer.body == Body::kInto) finish(peer.into, {}, rank, finishes);
  if (peer.body == Body::kStash) peer.stashed.push_back({peer.header.tag, std::move(peer.stash)});
  peer.stash = {};
  peer.body = Body::kNone;
}

bool Exchange::move_in(int rank, Peer& peer, Finishes& finishes) {
  bool moved = false;
  for (;;) {
    const size_t available = peer.stream.available();
    if (peer.body == Body::kNone) {
      if (available < sizeof(Header) || !wanted_from(rank)) return moved;
      peer.stream.take(&peer.header, sizeof(Header));
      peer.body = Body::kUnmatched;
      moved = true;
      continue;
    }
    if (peer.body == Body::kUnmatched) {
      begin_body(rank, peer, finishes);
      if (peer.body == Body::kUnmatched) return moved;
      moved = true;
    }
    const size_t n = std::min(peer.stream.available(), peer.header.size_bytes - peer.taken_bytes);
    if (n != 0) {
      std::byte* to = peer.body == Body::kInto    ? static_cast<std::byte*>(peer.into.data)
                      : peer.body == Body::kStash ? peer.stash.data()
                                                  : nullptr;
      peer.stream.take(to == nullptr ? nullptr : to + peer.taken_bytes, n);
      peer.taken_bytes += n;
      moved = true;
    }
    if (peer.taken_bytes < peer.header.size_bytes) return moved;
    end_body(rank, peer, finishes);
    moved = true;
  }
}

void Exchange::match_stashed(Finishes& finishes) {
  for (size_t rank = 0; rank < peers_.size(); ++rank) {
    auto& stashed = peers_[rank].stashed;
    for (auto it = stashed.begin(); it != stashed.end();) {
      ExchangeRequest request;
      const int from = static_cast<int>(rank);
      if (!find_receive(from, it->tag, &request)) {
        ++it;
        continue;
      }
      Status status;
      if (request.size_bytes != it->bytes.size())
        status = size_mismatch(request, it->bytes.size(), from);
      else if (!it->bytes.empty())
        std::memcpy(request.data, it->bytes.data(), it->bytes.size());
      finish(request, std::move(status), from, finishes);
      it = stashed.erase(it);
    }
  }
}

}  // namespace hpcore::torch_binding
