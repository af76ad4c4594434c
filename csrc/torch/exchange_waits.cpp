// Who moves the messages, how they sleep, and how requests fail.
#include "torch/exchange.hpp"
#include "torch/quiet_thread.hpp"
#include "torch/steady_wait.hpp"

namespace hpcore::torch_binding {

using collective::Channel;
using collective::Limits;

namespace {

constexpr auto kLookEvery = std::chrono::milliseconds(50);  // for peers that died

}  // namespace

Exchange::Exchange(std::shared_ptr<Channel> channel, std::string name)
    : channel_(std::move(channel)), name_(std::move(name)) {
  if (!channel_) return;
  for (int rank = 0; rank < channel_->size(); ++rank)
    peers_.emplace_back(PeerStream(*channel_, rank));
}

Exchange::~Exchange() { close(); }

void Exchange::add(ExchangeRequest request, bool outgoing) {
  if (!channel_) return request.done({}, request.peer);
  Lock lock(mutex_);
  if (closed_) {
    lock.unlock();
    return request.done(
        {Code::kAborted, "group '" + name_ + "' was aborted or shut down by this process"}, -1);
  }
  if (outgoing)
    peers_[static_cast<size_t>(request.peer)].outgoing.push_back({std::move(request)});
  else
    receives_.push_back(std::move(request));
  step(lock);
  if (closed_ || !pending()) return;
  if (!thread_.joinable()) {  // without one, messages move only while somebody waits
    (void)start_quiet_thread("hpcore-p2p", thread_, [self = shared_from_this()] { self->loop(); });
  }
  lock.unlock();
  idle_.notify_one();
  channel_->ring(channel_->index());  // a sleeper's deadline may be later than the new one
}

void Exchange::step(Lock& lock) {
  Finishes finishes;
  if (Status standing = channel_->standing(); !standing.ok()) {
    fail_all(standing, finishes);
  } else {
    match_stashed(finishes);
    for (bool moved = true; moved;) {
      moved = false;
      for (size_t rank = 0; rank < peers_.size(); ++rank) {
        moved = move_out(peers_[rank], finishes) || moved;
        moved = move_in(static_cast<int>(rank), peers_[rank], finishes) || moved;
      }
    }
    fail_broken(finishes);
    fail_late(finishes);
    fail_dead(finishes);
  }
  if (finishes.empty()) return;
  lock.unlock();
  for (Finished& finished : finishes) finished.done(finished.status, finished.source);
  channel_->ring(channel_->index());  // who waits for one of these sleeps on the same doorbell
  lock.lock();
}

void Exchange::sleep(Lock& lock, const std::function<bool()>* finished) {
  Limits limits{nearest_deadline()};
  if (channel_->watches_members()) {
    limits.deadline = std::min(limits.deadline, Clock::now() + kLookEvery);
  }
  lock.unlock();
  const auto awake = [&] {
    const std::lock_guard guard(mutex_);
    return closed_ || can_move() || !channel_->standing().ok() ||
           (finished != nullptr && (*finished)());
  };
  if (finished != nullptr) {
    Status interrupted;
    (void)channel_->wait(awake, limits, &interrupted);
  } else {
    channel_->member(channel_->index()).doorbell->wait(awake, limits.deadline);
  }
  lock.lock();
}

void Exchange::drive(const std::function<bool()>& finished) {
  if (!channel_) return;
  Lock lock(mutex_);
  while (!finished()) {
    step(lock);
    if (finished() || closed_) return;
    sleep(lock, &finished);
  }
}

void Exchange::loop() {
  Lock lock(mutex_);
  while (!closed_) {
    steady_wait(idle_, lock, [this] { return closed_ || pending(); });
    step(lock);
    if (!closed_ && pending()) sleep(lock, nullptr);
  }
}

void Exchange::close() {
  if (!channel_) return;
  Finishes finishes;
  std::thread thread;
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return;
    closed_ = true;
    Status standing = channel_->standing();
    if (standing.ok())
      standing = {Code::kAborted, "group '" + name_ + "' was closed by this process"};
    fail_all(standing, finishes);
    thread = std::move(thread_);
  }
  idle_.notify_all();
  channel_->ring(channel_->index());
  for (Finished& finished : finishes) finished.done(finished.status, finished.source);
  if (thread.get_id() == std::this_thread::get_id())
    thread.detach();
  else if (thread.joinable())
    thread.join();
}

void Exchange::fail_all(const Status& status, Finishes& finishes) {
  for (ExchangeRequest& request : receives_) finish(request, status, -1, finishes);
  receives_.clear();
  for (Peer& peer : peers_) {
    for (Outgoing& out : peer.outgoing) finish(out.request, status, -1, finishes);
    peer.outgoing.clear();
    if (peer.body == Body::kInto) finish(peer.into, status, -1, finishes);
    peer.body = Body::kNone;  // nothing moves any more
  }
}

Status Exchange::late(const char* what, const ExchangeRequest& request) const {
  const std::string peer = request.peer == ExchangeRequest::kAnySource
                               ? "any rank"
                               : "rank " + std::to_string(request.peer);
  return {Code::kTimeout, std::string(what) + " in group '" + name_ + "' of " +
                              std::to_string(request.size_bytes) + " bytes, tag " +
                              std::to_string(request.tag) + ", timed out: missing " + peer +
                              " (this is rank " + std::to_string(channel_->index()) + " of " +
                              std::to_string(channel_->size()) +
                              "). Did it call the other half, with the same tag?"};
}

void Exchange::fail_late(Finishes& finishes) {
  const TimePoint now = Clock::now();
  if (nearest_deadline() > now) return;
  for (auto it = receives_.begin(); it != receives_.end();) {
    if (it->deadline > now) {
      ++it;
      continue;
    }
    finish(*it, late("recv", *it), -1, finishes);
    it = receives_.erase(it);
  }
  for (Peer& peer : peers_) {
    if (peer.body == Body::kInto && peer.into.deadline <= now) {
      finish(peer.into, late("recv", peer.into), -1, finishes);
      peer.body = Body::kDrop;  // the rest of the message
    }
    for (auto it = peer.outgoing.begin(); it != peer.outgoing.end();) {
      if (it->request.deadline > now) {
        ++it;
        continue;
      }
      Status status = late("send", it->request);
      // Half a message is in the ring.
      if (it->sent_bytes != 0 && !it->whole()) peer.broken = status;
      finish(it->request, std::move(status), -1, finishes);
      it = peer.outgoing.erase(it);
    }
  }
}

// What follows a message that was cut.
void Exchange::fail_broken(Finishes& finishes) {
  for (Peer& peer : peers_) {
    if (peer.broken.ok()) continue;
    for (Outgoing& out : peer.outgoing) finish(out.request, peer.broken, -1, finishes);
    peer.outgoing.clear();
  }
}

bool Exchange::needed(int rank) const {
  const Peer& peer = peers_[static_cast<size_t>(rank)];
  return !peer.outgoing.empty() || peer.body == Body::kInto || wanted_from(rank);
}

// Who watches nobody else's members learns of a death here: a first look marks the peer, a second
// one, after what it had sent was taken, ends what still waits for it.
void Exchange::fail_dead(Finishes& finishes) {
  const TimePoint now = Clock::now();
  if (!channel_->watches_members() || now < next_look_ || !pending()) return;
  next_look_ = now + kLookEvery;
  size_t gone = 0;
  for (int rank = 0; rank < channel_->size(); ++rank) {
    Peer& peer = peers_[static_cast<size_t>(rank)];
    if (rank == channel_->index() || (!peer.dead && !needed(rank))) continue;
    const bool before = peer.dead;
    peer.dead = before || channel_->dead(rank);
    if (!before) continue;
    ++gone;
    end_with(rank,
             {Code::kPeerDead, "rank " + std::to_string(rank) + " of group '" + name_ + "' (pid " +
                                   std::to_string(channel_->pid_of(rank)) +
                                   ") has ended; a message to or from it cannot. See its log"},
             finishes);
  }
  if (gone + 1 < peers_.size()) return;
  const Status nobody{Code::kPeerDead,
                      "all other ranks of group '" + name_ + "' have ended: nobody sends"};
  for (ExchangeRequest& request : receives_) finish(request, nobody, -1, finishes);
  receives_.clear();
}

void Exchange::end_with(int rank, const Status& status, Finishes& finishes) {
  Peer& peer = peers_[static_cast<size_t>(rank)];
  for (auto it = receives_.begin(); it != receives_.end();) {
    if (it->peer != rank) {
      ++it;
      continue;
    }
    finish(*it, status, -1, finishes);
    it = receives_.erase(it);
  }
  for (Outgoing& out : peer.outgoing) finish(out.request, status, -1, finishes);
  peer.outgoing.clear();
  if (peer.body == Body::kInto) finish(peer.into, status, -1, finishes);
  if (peer.body != Body::kNone) peer.body = Body::kNone;
}

bool Exchange::pending() const {
  return !receives_.empty() || std::any_of(peers_.begin(), peers_.end(), [](const Peer& peer) {
    return !peer.outgoing.empty() || peer.body == Body::kInto || peer.body == Body::kStash ||
           peer.body == Body::kDrop;
  });
}

bool Exchange::can_move() const {
  for (size_t rank = 0; rank < peers_.size(); ++rank) {
    const Peer& peer = peers_[rank];
    if (!peer.outgoing.empty()) {
      const Outgoing& out = peer.outgoing.front();
      if (out.whole() ? channel_->joined(static_cast<int>(rank))
                      : peer.stream.room() >= (out.sent_bytes == 0 ? sizeof(Header) : 1))
        return true;
    }
    const size_t available = peer.stream.available();
    const bool wanted = wanted_from(static_cast<int>(rank));
    if (peer.body == Body::kNone && wanted && available >= sizeof(Header)) return true;
    if (peer.body == Body::kUnmatched && wanted) return true;
    if (peer.body > Body::kUnmatched && available != 0) return true;
  }
  return false;
}

TimePoint Exchange::nearest_deadline() const {
  TimePoint nearest = TimePoint::max();
  for (const ExchangeRequest& request : receives_) nearest = std::min(nearest, request.deadline);
  for (const Peer& peer : peers_) {
    if (peer.body == Body::kInto) nearest = std::min(nearest, peer.into.deadline);
    for (const Outgoing& out : peer.outgoing) nearest = std::min(nearest, out.request.deadline);
  }
  return nearest;
}

}  // namespace hpcore::torch_binding
