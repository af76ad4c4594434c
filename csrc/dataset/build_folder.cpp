#include "dataset/build_folder.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/digest.hpp"
#include "dataset/spool.hpp"

namespace hpcore::dataset {
namespace {

constexpr uint64_t kJournalMagic = 0x314C4E524A445048;  // "HPDJRNL1"
constexpr size_t kMostJournalBytes = 64 << 20;

// magic, identity, number of lengths, the lengths, the note, a checksum of all that.
std::vector<unsigned char> pack(const JournalEntry& entry) {
  std::vector<uint64_t> words = {kJournalMagic, entry.identity, entry.lengths.size()};
  words.insert(words.end(), entry.lengths.begin(), entry.lengths.end());
  const size_t words_bytes = words.size() * sizeof(uint64_t);
  std::vector<unsigned char> bytes(words_bytes + entry.note.size());
  std::memcpy(bytes.data(), words.data(), words_bytes);
  std::memcpy(bytes.data() + words_bytes, entry.note.data(), entry.note.size());
  const uint32_t crc = crc32c(bytes.data(), bytes.size());
  const auto* tail = reinterpret_cast<const unsigned char*>(&crc);
  bytes.insert(bytes.end(), tail, tail + sizeof crc);
  return bytes;
}

std::optional<JournalEntry> unpack(const std::vector<unsigned char>& bytes) {
  uint32_t crc;
  uint64_t head[3];
  if (bytes.size() < sizeof head + sizeof crc) return std::nullopt;
  const size_t body = bytes.size() - sizeof crc;
  std::memcpy(&crc, bytes.data() + body, sizeof crc);
  std::memcpy(head, bytes.data(), sizeof head);
  if (crc != crc32c(bytes.data(), body) || head[0] != kJournalMagic) return std::nullopt;
  if (head[2] > (body - sizeof head) / sizeof(uint64_t)) return std::nullopt;
  JournalEntry entry;
  entry.identity = head[1];
  entry.lengths.resize(head[2]);
  const size_t lengths_bytes = head[2] * sizeof(uint64_t);
  std::memcpy(entry.lengths.data(), bytes.data() + sizeof head, lengths_bytes);
  entry.note.assign(bytes.begin() + static_cast<ptrdiff_t>(sizeof head + lengths_bytes),
                    bytes.begin() + static_cast<ptrdiff_t>(body));
  return entry;
}

}  // namespace

// False: the folder went away between making and locking it.
Result<bool> BuildFolder::try_lock() {
  if (mkdir(path_.c_str(), 0755) != 0 && errno != EEXIST)
    return Status::system("making folder " + path_, errno);
  const std::string name = file("lock");
  lock_ = Fd(::open(name.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644));
  if (!lock_.valid()) {
    const int error_number = errno;
    if (error_number == ENOENT) return false;
    return Status::system("creating " + name, error_number);
  }
  if (flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    const int error_number = errno;
    if (error_number != EWOULDBLOCK) return Status::system("locking " + name, error_number);
    return Status(Code::kInvalid, "another process is building " + target_ +
                                      " (it holds the lock " + name +
                                      "): wait for it, or choose another name");
  }
  struct stat ours{}, named{};
  return fstat(lock_.get(), &ours) == 0 && stat(name.c_str(), &named) == 0 &&
         ours.st_ino == named.st_ino && ours.st_dev == named.st_dev;
}

Status BuildFolder::open() {
  for (int attempt = 0; attempt < 100; ++attempt) {
    Result<bool> locked = try_lock();
    HPCORE_RETURN_IF_ERROR(locked.status());
    if (locked.value()) return {};
  }
  return {Code::kInvalid, "folder " + path_ + " is made and removed by others all the time"};
}

std::optional<JournalEntry> BuildFolder::read_journal() const {
  const std::string name = file("journal");
  const Fd fd(::open(name.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat info{};
  if (!fd.valid() || fstat(fd.get(), &info) != 0) return std::nullopt;
  const auto size_bytes = static_cast<size_t>(info.st_size);
  if (size_bytes > kMostJournalBytes) return std::nullopt;
  std::vector<unsigned char> bytes(size_bytes);
  if (!read_whole(fd.get(), name, bytes.data(), bytes.size(), 0).ok()) return std::nullopt;
  return unpack(bytes);
}

Status BuildFolder::write_journal(const JournalEntry& entry) const {
  const std::vector<unsigned char> bytes = pack(entry);
  const std::string name = file("journal"), fresh = file("journal.new");
  const Fd fd(::open(fresh.c_str(), O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0644));
  if (!fd.valid()) return Status::system("creating " + fresh, errno);
  HPCORE_RETURN_IF_ERROR(write_at(fd.get(), fresh, bytes.data(), bytes.size(), 0));
  HPCORE_RETURN_IF_ERROR(sync_file(fd.get(), fresh));
  if (rename(fresh.c_str(), name.c_str()) != 0) return Status::system("renaming " + fresh, errno);
  return sync_folder_of(name);
}

void BuildFolder::clear() const {
  DIR* folder = opendir(path_.c_str());
  if (folder == nullptr) return;
  while (const dirent* entry = readdir(folder)) {
    const std::string name = entry->d_name;
    if (name != "." && name != ".." && name != "lock") unlink(file(name).c_str());
  }
  closedir(folder);
}

void BuildFolder::remove() {
  if (!lock_.valid()) return;
  clear();
  unlink(file("lock").c_str());
  rmdir(path_.c_str());
  lock_.reset();
}

}  // namespace hpcore::dataset
