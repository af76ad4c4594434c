// Purpose: point-to-point messages between the members of a channel, matched by (source, tag) in
// the order they were sent. Any number of sends and receives in both directions make progress
// together, so their order cannot deadlock, nor can they with a collective: whoever waits moves all
// of them, and a thread moves what nobody waits for. Threads: thread-safe. Ownership: shares the
// channel; buffers belong to the caller until `done` was called. Lifecycle: `done` is called once
// for each request, under no lock, on the thread that made the last progress; of a send when the
// message is in the ring and its receiver has opened the group's memory. close() ends all
// requests with kAborted and ends the thread. Without a channel (rehearsal) every request is done
// at once. A message that no receive asks for stays in its ring, where it holds up its sender. It
// is set aside into memory of this process only when a receive waits for a later message of that
// member.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "torch/peer_stream.hpp"

namespace hpcore::torch_binding {

struct ExchangeRequest {
  static constexpr int kAnySource = -1;

  void* data = nullptr;
  size_t size_bytes = 0;
  int peer = 0;
  int64_t tag = 0;
  TimePoint deadline = TimePoint::max();
  std::function<void(const Status&, int source)> done;
};

class Exchange : public std::enable_shared_from_this<Exchange> {
 public:
  Exchange(std::shared_ptr<collective::Channel> channel, std::string name);
  ~Exchange();
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  void send(ExchangeRequest request) { add(std::move(request), true); }
  void receive(ExchangeRequest request) { add(std::move(request), false); }
  // Moves everything that can move, in the calling thread, until finished() holds.
  void drive(const std::function<bool()>& finished);
  void close();

 private:
  struct Header {
    uint64_t size_bytes;
    int64_t tag;
  };
  struct Outgoing {
    ExchangeRequest request;
    size_t sent_bytes = 0;  // header included
    [[nodiscard]] bool whole() const { return sent_bytes == sizeof(Header) + request.size_bytes; }
  };
  struct Stashed {
    int64_t tag;
    std::vector<std::byte> bytes;
  };
  enum class Body { kNone, kUnmatched, kInto, kStash, kDrop };
  struct Peer {
    explicit Peer(PeerStream stream) : stream(stream) {}
    PeerStream stream;
    std::deque<Outgoing> outgoing;
    Body body = Body::kNone;  // of the message at the head of the incoming stream
    Header header{};
    size_t taken_bytes = 0;
    ExchangeRequest into;
    std::vector<std::byte> stash;
    std::deque<Stashed> stashed;
    bool dead = false;  // seen once; what it sent before is taken first
    Status broken;      // a message to this peer was cut by its deadline: nothing may follow it
  };
  struct Finished {
    std::function<void(const Status&, int)> done;
    Status status;
    int source;
  };
  using Lock = std::unique_lock<std::mutex>;
  using Finishes = std::vector<Finished>;

  void add(ExchangeRequest request, bool outgoing);
  void step(Lock& lock);
  void sleep(Lock& lock, const std::function<bool()>* finished);
  void loop();
  bool move_out(Peer& peer, Finishes& finishes);
  bool move_in(int rank, Peer& peer, Finishes& finishes);
  void begin_body(int rank, Peer& peer, Finishes& finishes);
  void end_body(int rank, Peer& peer, Finishes& finishes);
  bool find_receive(int rank, int64_t tag, ExchangeRequest* found);
  [[nodiscard]] bool wanted_from(int rank) const;
  void match_stashed(Finishes& finishes);
  void fail_all(const Status& status, Finishes& finishes);
  void fail_late(Finishes& finishes);
  void fail_broken(Finishes& finishes);
  void fail_dead(Finishes& finishes);
  void end_with(int rank, const Status& status, Finishes& finishes);
  [[nodiscard]] bool needed(int rank) const;
  [[nodiscard]] Status size_mismatch(const ExchangeRequest& request, uint64_t got_bytes,
                                     int rank) const;
  [[nodiscard]] Status late(const char* what, const ExchangeRequest& request) const;
  static void finish(ExchangeRequest& request, Status status, int source, Finishes& finishes);
  [[nodiscard]] bool pending() const;
  [[nodiscard]] bool can_move() const;
  [[nodiscard]] TimePoint nearest_deadline() const;

  std::shared_ptr<collective::Channel> channel_;
  std::string name_;
  std::mutex mutex_;
  std::condition_variable idle_;
  std::vector<Peer> peers_;
  std::list<ExchangeRequest> receives_;  // in the order of their calls
  TimePoint next_look_{};                // for dead peers
  bool closed_ = false;
  std::thread thread_;
};

}  // namespace hpcore::torch_binding
