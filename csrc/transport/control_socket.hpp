// Purpose: a connection on which a receiver asks a source for bytes that travel some other way, and
// hears of failures: frames of one size, and now and then plain bytes. That the other side is gone
// is known at once: the kernel closes its end.
//   "unix:NAME"       a process of this host (abstract name: no file is left)
//   "tcp:HOST:PORT"   another host
// Threads: send() and receive() each externally serialised; one thread may send while another
// receives; cut() from any thread. Ownership: move-only, owns the descriptor.
#pragma once

#include <array>
#include <atomic>
#include <string>

#include "base/fd.hpp"
#include "base/futex.hpp"
#include "base/status.hpp"
#include "transport/regions.hpp"
#include "transport/remote_memory.hpp"

namespace hpcore::transport {

enum class FrameKind : uint32_t { kHello = 1, kWelcome, kRequest, kBytes, kFailed };

struct ControlFrame {
  uint32_t mark = kMark;
  FrameKind kind = FrameKind::kFailed;
  uint64_t number = 0;  // kHello: generation; kFailed: Code
  uint64_t offset = 0;
  uint64_t bytes = 0;
  std::array<char, 224> text{};

  static constexpr uint32_t kMark = 0x314b4c48;  // "HLK1"
  void set_text(const std::string& value);
  [[nodiscard]] std::string get_text() const;  // up to the first zero
  static ControlFrame failed(const Status& why);
  [[nodiscard]] Status failure() const;  // of kFailed
};
static_assert(sizeof(ControlFrame) == 256);

class ControlSocket {
 public:
  ControlSocket() = default;
  explicit ControlSocket(Fd fd) : fd_(std::move(fd)) {}
  static Result<ControlSocket> connect(const std::string& place, TimePoint deadline);

  // kPeerDead: closed by the other side. kTimeout: it takes nothing.
  [[nodiscard]] Status send(const ControlFrame& frame);
  [[nodiscard]] Status send_bytes(const RegionMap& from, uint64_t offset, uint64_t bytes);
  // False when nothing came until then. kPeerDead: closed. kCorrupt: not a frame.
  [[nodiscard]] Result<bool> receive(ControlFrame* frame, TimePoint deadline);
  [[nodiscard]] Status receive_bytes(const RegionMap& into, uint64_t offset, uint64_t bytes,
                                     TimePoint deadline, const StopCondition& stop);
  // kPeerDead once the other side has closed and all that it sent was received.
  [[nodiscard]] Status still_open() const;
  void cut();  // both sides see the end

 private:
  Status send_all(const void* from, size_t bytes);
  Result<size_t> receive_some(void* to, size_t bytes, TimePoint deadline);
  Fd fd_;
  std::array<char, sizeof(ControlFrame)> partial_{};
  size_t received_ = 0;
};

class ControlListener {
 public:
  // `host` empty: of this host only; else the address to listen at.
  static Result<ControlListener> open(const std::string& host);
  [[nodiscard]] const std::string& place() const { return place_; }
  // Nothing (an invalid descriptor) when nobody came in time.
  [[nodiscard]] Result<Fd> accept(int wait_ms);

 private:
  Fd fd_;
  std::string place_;
};

}  // namespace hpcore::transport
