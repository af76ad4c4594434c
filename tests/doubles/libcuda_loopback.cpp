// A test double of libcuda: the same symbols, "device memory" in memfds of the host. Streams are
// threads, so that work that was not waited for is really not done; calls without a current context
// fail, as does host memory where device memory is asked about. Memory and events can be opened by
// other processes of the same user through their IPC handles.
//
// Faults (loopback_faults.hpp):
//   devices       that many devices (default 1); -1: none, as on a machine without a GPU
//   uuid          changes the devices' uuid: another machine, or one that is not visible
//   ipc_refused   memory has no IPC handle, as with torch's expandable segments
//   flip_copy     the n-th copy from now flips a bit of its first byte
//   copy_error    the n-th copy from now fails, and everything after it (error 719)
//   stall         copies wait while it is set
//   version       what cuDriverGetVersion says (default 12080)
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "loopback_faults.hpp"

#define API extern "C" __attribute__((visibility("default")))

namespace {

constexpr int kInvalidValue = 1, kOutOfMemory = 2, kNoDevice = 100, kInvalidContext = 201;
constexpr int kInvalidHandle = 400, kNotReady = 600, kLaunchFailed = 719, kNotSupported = 801;

enum { kDevices, kUuid, kIpcRefused, kFlipCopy, kCopyError, kStall, kVersion };
loopback::Fault faults[] = {loopback::Fault("devices"),     loopback::Fault("uuid"),
                            loopback::Fault("ipc_refused"), loopback::Fault("flip_copy"),
                            loopback::Fault("copy_error"),  loopback::Fault("stall"),
                            loopback::Fault("version")};
const bool environment_read = (loopback::read_environment(faults), true);

struct Handle {  // 64 bytes that another process gets
  uint64_t magic, pid, fd, inode, bytes, unused[3];
};
static_assert(sizeof(Handle) == 64);
constexpr uint64_t kMagic = 0x4c4f4f5043554441;

struct Memory {  // a memfd, mapped
  int fd = -1;
  size_t bytes = 0;
  void* base = nullptr;
  bool opened = false;  // somebody else's

  bool map() {
    base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return base != MAP_FAILED;
  }
  bool create(size_t size) {
    bytes = size;
    fd = memfd_create("loopback-cuda", MFD_CLOEXEC);
    return fd >= 0 && ftruncate(fd, static_cast<off_t>(size)) == 0 && map();
  }
  [[nodiscard]] Handle handle() const {
    struct stat facts{};
    fstat(fd, &facts);
    return {kMagic, uint64_t(getpid()), uint64_t(fd), uint64_t(facts.st_ino), bytes, {}};
  }
  int open(const Handle& from) {
    if (from.magic != kMagic) return kInvalidHandle;
    if (from.pid == uint64_t(getpid())) return kInvalidContext;  // CUDA: not in one's own process
    const std::string path = "/proc/" + std::to_string(from.pid) + "/fd/" + std::to_string(from.fd);
    fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    struct stat facts{};
    if (fd < 0 || fstat(fd, &facts) != 0 || facts.st_ino != from.inode) return kInvalidHandle;
    bytes = from.bytes;
    opened = true;
    return map() ? 0 : kOutOfMemory;
  }
  void release() {
    if (base != nullptr && base != MAP_FAILED) munmap(base, bytes);
    if (fd >= 0) close(fd);
  }
};

std::mutex mutex;  // guards memories
std::map<uint64_t, Memory> memories;
std::atomic<int> sticky{0};  // an error that ends everything
thread_local int contexts = 0;

const Memory* memory_of(uint64_t pointer) {
  auto after = memories.upper_bound(pointer);
  if (after == memories.begin()) return nullptr;
  const Memory& memory = std::prev(after)->second;
  return pointer - std::prev(after)->first < memory.bytes ? &memory : nullptr;
}

int usable() { return contexts == 0 ? kInvalidContext : sticky.load(); }

void nap() { usleep(50); }

}  // namespace

struct CUstream_st {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::function<void()>> work;
  bool busy = false, ended = false;
  std::thread thread{[this] { run(); }};

  void push(std::function<void()> piece) {
    const std::scoped_lock lock(mutex);
    work.push_back(std::move(piece));
    changed.notify_all();
  }
  void run() {
    std::unique_lock lock(mutex);
    for (;;) {
      changed.wait(lock, [this] { return ended || !work.empty(); });
      if (work.empty()) return;
      auto piece = std::move(work.front());
      work.pop_front();
      busy = true;
      lock.unlock();
      piece();
      lock.lock();
      busy = false;
    }
  }
  bool idle() {
    const std::scoped_lock lock(mutex);
    return work.empty() && !busy;
  }
  ~CUstream_st() {
    {
      const std::scoped_lock lock(mutex);
      ended = true;
      changed.notify_all();
    }
    thread.join();
  }
};

struct CUevent_st {
  struct Word {
    std::atomic<uint64_t> asked{0}, done{0};
  };
  Memory memory;
  [[nodiscard]] Word* word() const { return static_cast<Word*>(memory.base); }
  ~CUevent_st() { memory.release(); }
};

namespace {

void enqueue(CUstream_st* stream, std::function<void()> piece) {
  if (stream == nullptr) {  // the legacy stream: at once
    piece();
  } else {
    stream->push(std::move(piece));
  }
}

void copy(uint64_t to, uint64_t from, size_t bytes) {
  while (faults[kStall].get() != 0) nap();
  if (faults[kCopyError].strikes()) sticky = kLaunchFailed;
  if (sticky != 0) return;
  std::memcpy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes);
  if (faults[kFlipCopy].strikes()) *reinterpret_cast<unsigned char*>(to) ^= 1;
}

}  // namespace

API int loopback_fault(const char* name, long value) {
  return loopback::set_fault(faults, name, value) ? 0 : kInvalidValue;
}
API int cuInit(unsigned) { return faults[kDevices].get() < 0 ? kNoDevice : 0; }
API int cuDriverGetVersion(int* version) {
  *version = faults[kVersion].get() != 0 ? int(faults[kVersion].get()) : 12080;
  return 0;
}
API int cuGetErrorString(int result, const char** text) {
  *text = result == kNoDevice         ? "no CUDA-capable device is detected"
          : result == kInvalidContext ? "invalid device context"
          : result == kLaunchFailed   ? "unspecified launch failure"
          : result == kNotSupported   ? "operation not supported"
          : result == kInvalidHandle  ? "invalid resource handle"
                                      : "invalid argument";
  return 0;
}
API int cuDeviceGetCount(int* count) {
  *count = faults[kDevices].get() == 0 ? 1 : int(faults[kDevices].get());
  return 0;
}
API int cuDeviceGet(int* device, int ordinal) {
  int count = 0;
  cuDeviceGetCount(&count);
  *device = ordinal;
  return ordinal >= 0 && ordinal < count ? 0 : kInvalidValue;
}
API int cuDeviceGetName(char* name, int bytes, int) {
  std::snprintf(name, size_t(bytes), "loopback");
  return 0;
}
API int cuDeviceGetUuid_v2(unsigned char* uuid, int device) {
  std::memcpy(uuid, "loopback-device", 16);
  uuid[14] = static_cast<unsigned char>(device);
  uuid[15] = static_cast<unsigned char>(faults[kUuid].get());
  return 0;
}
API int cuDevicePrimaryCtxRetain(void** context, int device) {
  *context = reinterpret_cast<void*>(uintptr_t(device) + 1);
  return 0;
}
API int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
API int cuCtxPushCurrent_v2(void*) { return ++contexts, 0; }
API int cuCtxPopCurrent_v2(void**) { return contexts > 0 ? (--contexts, 0) : kInvalidContext; }

API int cuMemAlloc_v2(uint64_t* pointer, size_t bytes) {
  if (const int error = usable()) return error;
  if (bytes == 0) return kInvalidValue;
  Memory memory;
  if (!memory.create(bytes)) return memory.release(), kOutOfMemory;
  *pointer = reinterpret_cast<uint64_t>(memory.base);
  const std::scoped_lock lock(mutex);
  memories[*pointer] = memory;
  return 0;
}
API int cuMemFree_v2(uint64_t pointer) {
  const std::scoped_lock lock(mutex);
  const auto found = memories.find(pointer);
  if (found == memories.end() || found->second.opened) return kInvalidValue;
  found->second.release();
  memories.erase(found);
  return 0;
}
API int cuMemHostAlloc(void** pointer, size_t bytes, unsigned) {
  if (const int error = usable()) return error;
  return (*pointer = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096)) ? 0 : kOutOfMemory;
}
API int cuMemFreeHost(void* pointer) { return free(pointer), 0; }
API int cuMemcpyAsync(uint64_t to, uint64_t from, size_t bytes, CUstream_st* stream) {
  if (const int error = usable()) return error;
  enqueue(stream, [=] { copy(to, from, bytes); });
  return 0;
}
API int cuMemGetAddressRange_v2(uint64_t* base, size_t* bytes, uint64_t pointer) {
  const std::scoped_lock lock(mutex);
  const Memory* memory = memory_of(pointer);
  if (memory == nullptr) return kInvalidValue;
  *base = reinterpret_cast<uint64_t>(memory->base);
  *bytes = memory->bytes;
  return 0;
}
API int cuPointerGetAttribute(void* out, int attribute, uint64_t pointer) {
  const std::scoped_lock lock(mutex);
  if (memory_of(pointer) == nullptr) return kInvalidValue;
  *static_cast<unsigned*>(out) = attribute == 2 ? 2 : 0;
  return 0;
}

API int cuStreamCreate(CUstream_st** stream, unsigned) {
  if (const int error = usable()) return error;
  *stream = new CUstream_st;
  return 0;
}
API int cuStreamDestroy_v2(CUstream_st* stream) { return delete stream, 0; }
API int cuStreamQuery(CUstream_st* stream) {
  if (sticky != 0) return sticky;
  return stream == nullptr || stream->idle() ? 0 : kNotReady;
}
API int cuStreamWaitEvent(CUstream_st* stream, CUevent_st* event, unsigned) {
  const uint64_t asked = event->word()->asked.load();
  enqueue(stream, [=] {
    while (event->word()->done.load() < asked) nap();
  });
  return 0;
}
API int cuLaunchHostFunc(CUstream_st* stream, void (*function)(void*), void* data) {
  enqueue(stream, [=] { function(data); });
  return 0;
}
API int cuEventCreate(CUevent_st** event, unsigned) {
  if (const int error = usable()) return error;
  auto* made = new CUevent_st;
  if (!made->memory.create(sizeof(CUevent_st::Word))) return delete made, kOutOfMemory;
  *event = made;
  return 0;
}
API int cuEventRecord(CUevent_st* event, CUstream_st* stream) {
  if (const int error = usable()) return error;
  const uint64_t number = event->word()->asked.fetch_add(1) + 1;
  enqueue(stream, [=] { event->word()->done.store(number); });
  return 0;
}
API int cuEventQuery(CUevent_st* event) {
  if (sticky != 0) return sticky;
  return event->word()->done.load() >= event->word()->asked.load() ? 0 : kNotReady;
}
API int cuEventDestroy_v2(CUevent_st* event) { return delete event, 0; }

API int cuIpcGetMemHandle(Handle* handle, uint64_t pointer) {
  const std::scoped_lock lock(mutex);
  const Memory* memory = memory_of(pointer);
  if (memory == nullptr || memory->opened) return kInvalidValue;
  if (faults[kIpcRefused].get() != 0) return kInvalidValue;
  *handle = memory->handle();
  return 0;
}
API int cuIpcOpenMemHandle_v2(uint64_t* pointer, Handle handle, unsigned) {
  if (const int error = usable()) return error;
  Memory memory;
  if (const int error = memory.open(handle)) return memory.release(), error;
  *pointer = reinterpret_cast<uint64_t>(memory.base);
  const std::scoped_lock lock(mutex);
  memories[*pointer] = memory;
  return 0;
}
API int cuIpcCloseMemHandle(uint64_t pointer) {
  const std::scoped_lock lock(mutex);
  const auto found = memories.find(pointer);
  if (found == memories.end() || !found->second.opened) return kInvalidValue;
  found->second.release();
  memories.erase(found);
  return 0;
}
API int cuIpcGetEventHandle(Handle* handle, CUevent_st* event) {
  *handle = event->memory.handle();
  return 0;
}
API int cuIpcOpenEventHandle(CUevent_st** event, Handle handle) {
  if (const int error = usable()) return error;
  auto* made = new CUevent_st;
  if (const int error = made->memory.open(handle)) return delete made, error;
  *event = made;
  return 0;
}
