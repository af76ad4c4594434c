#include "transport/control_socket.hpp"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <random>

namespace hpcore::transport {
namespace {

constexpr auto kSendLimit = std::chrono::seconds(2);
constexpr int kFlags = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
const Status kClosed(Code::kPeerDead, "the other process closed its connection");

int milliseconds_until(TimePoint deadline) {
  const auto left =
      std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left + 1, 0, 60'000));
}

bool wait_for(int fd, short events, TimePoint deadline) {
  pollfd entry{fd, events, 0};
  return poll(&entry, 1, Clock::now() >= deadline ? 0 : milliseconds_until(deadline)) == 1;
}

// How long the name is matters to the kernel.
socklen_t unix_address(const std::string& name, sockaddr_un* address) {
  address->sun_family = AF_UNIX;
  const size_t bytes = std::min(name.size(), sizeof address->sun_path - 1);
  std::memcpy(address->sun_path + 1, name.data(), bytes);
  return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + bytes);
}

using Found = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

Result<Found> look_up(const std::string& host, const std::string& port, int flags) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags;
  addrinfo* found = nullptr;
  const int result = getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
  if (result != 0) {
    return Status(Code::kNotFound, "host " + host + ": " + std::string(gai_strerror(result)));
  }
  return Found(found, &freeaddrinfo);
}

Result<Fd> connected(int family, const sockaddr* address, socklen_t bytes, const std::string& place,
                     TimePoint deadline) {
  Fd fd(socket(family, kFlags, 0));
  if (!fd.valid()) return Status::system("a socket to " + place, errno);
  if (connect(fd.get(), address, bytes) != 0) {
    int error = errno;
    if (error == EINPROGRESS || error == EAGAIN) {
      if (!wait_for(fd.get(), POLLOUT, deadline)) {
        return Status(Code::kTimeout, "no answer to a connection from " + place);
      }
      socklen_t size = sizeof error;
      getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    }
    if (error != 0) {
      const bool dead = error == ECONNREFUSED;
      Status status = Status::system("connecting to " + place, error);
      return dead ? Status(Code::kPeerDead, status.message()) : status;
    }
  }
  const int on = 1;
  if (family != AF_UNIX) setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

}  // namespace

void ControlFrame::set_text(const std::string& value) {
  text.fill(0);
  std::memcpy(text.data(), value.data(), std::min(value.size(), text.size()));
}

std::string ControlFrame::get_text() const {
  return {text.data(), strnlen(text.data(), text.size())};
}

ControlFrame ControlFrame::failed(const Status& why) {
  ControlFrame frame;
  frame.number = static_cast<uint64_t>(why.code());
  frame.set_text(why.message());
  return frame;
}

Status ControlFrame::failure() const {
  const bool known = number > 0 && number <= static_cast<uint64_t>(Code::kSystem);
  return {known ? static_cast<Code>(number) : Code::kPeerDead, "the source says: " + get_text()};
}

Result<ControlSocket> ControlSocket::connect(const std::string& place, TimePoint deadline) {
  const std::string kind = place.substr(0, place.find(':'));
  const std::string rest = place.substr(std::min(place.size(), kind.size() + 1));
  if (kind == "unix") {
    sockaddr_un address{};
    const socklen_t bytes = unix_address(rest, &address);
    Result<Fd> fd =
        connected(AF_UNIX, reinterpret_cast<const sockaddr*>(&address), bytes, place, deadline);
    if (!fd.ok()) return fd.status();
    return ControlSocket(std::move(fd.value()));
  }
  const size_t colon = rest.rfind(':');
  if (kind != "tcp" || colon == std::string::npos) {
    return Status(Code::kCorrupt, "\"" + place + "\" is no place to connect to");
  }
  Result<Found> found = look_up(rest.substr(0, colon), rest.substr(colon + 1), 0);
  if (!found.ok()) return found.status();
  Status last(Code::kNotFound, "no address of " + place);
  for (const addrinfo* at = found.value().get(); at != nullptr; at = at->ai_next) {
    Result<Fd> fd = connected(at->ai_family, at->ai_addr, at->ai_addrlen, place, deadline);
    if (fd.ok()) return ControlSocket(std::move(fd.value()));
    last = fd.status();
  }
  return last;
}

Status ControlSocket::send_all(const void* from, size_t bytes) {
  const auto* at = static_cast<const char*>(from);
  const TimePoint deadline = Clock::now() + kSendLimit;
  while (bytes > 0) {
    const ssize_t sent = ::send(fd_.get(), at, bytes, MSG_NOSIGNAL);
    if (sent > 0) {
      at += sent;
      bytes -= static_cast<size_t>(sent);
    } else if (errno == EAGAIN) {
      if (!wait_for(fd_.get(), POLLOUT, deadline)) {
        return {Code::kTimeout, "the other process takes no requests for 2 s"};
      }
    } else if (errno != EINTR) {
      return kClosed;
    }
  }
  return {};
}

Status ControlSocket::send(const ControlFrame& frame) { return send_all(&frame, sizeof frame); }

Status ControlSocket::send_bytes(const RegionMap& from, uint64_t offset, uint64_t bytes) {
  std::vector<iovec> pieces;
  from.pieces(offset, bytes, &pieces);
  for (const iovec& piece : pieces) {
    HPCORE_RETURN_IF_ERROR(send_all(piece.iov_base, piece.iov_len));
  }
  return {};
}

Result<size_t> ControlSocket::receive_some(void* to, size_t bytes, TimePoint deadline) {
  for (;;) {
    const ssize_t got = recv(fd_.get(), to, bytes, 0);
    if (got > 0) return static_cast<size_t>(got);
    if (got == 0) return kClosed;
    if (errno == EAGAIN) {
      if (!wait_for(fd_.get(), POLLIN, deadline)) return size_t{0};
    } else if (errno != EINTR) {
      return kClosed;
    }
  }
}

Result<bool> ControlSocket::receive(ControlFrame* frame, TimePoint deadline) {
  while (received_ < partial_.size()) {
    const Result<size_t> got =
        receive_some(partial_.data() + received_, partial_.size() - received_, deadline);
    if (!got.ok()) return got.status();
    if (got.value() == 0) return false;
    received_ += got.value();
  }
  received_ = 0;
  std::memcpy(static_cast<void*>(frame), partial_.data(), sizeof *frame);
  if (frame->mark != ControlFrame::kMark) {
    return Status(Code::kCorrupt, "what came on a control connection is not a frame of ours");
  }
  return true;
}

Status ControlSocket::receive_bytes(const RegionMap& into, uint64_t offset, uint64_t bytes,
                                    TimePoint deadline, const StopCondition& stop) {
  std::vector<iovec> pieces;
  into.pieces(offset, bytes, &pieces);
  for (const iovec& piece : pieces) {
    for (size_t done = 0; done < piece.iov_len;) {
      if (stop()) return {Code::kAborted, "reading state was stopped"};
      const TimePoint look = std::min(deadline, Clock::now() + std::chrono::milliseconds(20));
      const Result<size_t> got =
          receive_some(static_cast<char*>(piece.iov_base) + done, piece.iov_len - done, look);
      if (!got.ok()) return got.status();
      done += got.value();
      if (got.value() == 0 && Clock::now() >= deadline) {
        return {Code::kTimeout, "the other process does not go on sending"};
      }
    }
  }
  return {};
}

Status ControlSocket::still_open() const {
  char next = 0;
  const ssize_t got = recv(fd_.get(), &next, 1, MSG_PEEK | MSG_DONTWAIT);
  if (got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR))) return {};
  return kClosed;
}

void ControlSocket::cut() {
  if (fd_.valid()) shutdown(fd_.get(), SHUT_RDWR);
}

Result<ControlListener> ControlListener::open(const std::string& host) {
  ControlListener made;
  if (host.empty()) {
    std::random_device random;
    const std::string name = "hpcore-link-" + std::to_string(getpid()) + "-" +
                             std::to_string(random()) + std::to_string(random());
    sockaddr_un address{};
    const socklen_t bytes = unix_address(name, &address);
    made.fd_ = Fd(socket(AF_UNIX, kFlags, 0));
    if (bind(made.fd_.get(), reinterpret_cast<const sockaddr*>(&address), bytes) != 0) {
      return Status::system("listening for receivers", errno);
    }
    made.place_ = "unix:" + name;
  } else {
    Result<Found> found = look_up(host, "0", AI_PASSIVE);
    if (!found.ok()) return found.status();
    const addrinfo* at = found.value().get();
    made.fd_ = Fd(socket(at->ai_family, kFlags, 0));
    if (bind(made.fd_.get(), at->ai_addr, at->ai_addrlen) != 0) {
      return Status::system("listening for receivers at " + host, errno);
    }
    sockaddr_storage bound{};
    socklen_t bytes = sizeof bound;
    char port[16] = {};
    getsockname(made.fd_.get(), reinterpret_cast<sockaddr*>(&bound), &bytes);
    getnameinfo(reinterpret_cast<sockaddr*>(&bound), bytes, nullptr, 0, port, sizeof port,
                NI_NUMERICSERV);
    made.place_ = "tcp:" + host + ":" + port;
  }
  if (listen(made.fd_.get(), 128) != 0) return Status::system("listening for receivers", errno);
  return made;
}

Result<Fd> ControlListener::accept(int wait_ms) {
  pollfd entry{fd_.get(), POLLIN, 0};
  if (poll(&entry, 1, wait_ms) != 1) return Fd();
  Fd fd(accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (fd.valid()) {
    const int on = 1;  // not for unix sockets, where it fails
    (void)setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  return fd;
}

}  // namespace hpcore::transport
