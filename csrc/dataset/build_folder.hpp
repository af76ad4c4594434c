// Purpose: the folder OUT.building of an unfinished dataset: its lock (one builder a name), its
// journal (how far each of its files was on disk, with the builder's own note), its removal.
// Lifecycle: stays after SIGKILL, so that the next build of the same name goes on from the journal;
// a finished or given up build removes it.
// Threads: one thread.
// Ownership: owns the lock's descriptor; the kernel lets the lock go when the process dies.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/status.hpp"

namespace hpcore::dataset {

struct JournalEntry {
  uint64_t identity = 0;          // of the fields and metadata: another build's journal is no use
  std::vector<uint64_t> lengths;  // of the folder's files, in the writer's order
  std::string note;               // the builder's: where it was in its input
};

class BuildFolder {
 public:
  explicit BuildFolder(const std::string& target) : target_(target), path_(target + ".building") {}

  // Makes the folder if there is none and takes its lock; kInvalid while another process has it.
  Status open();
  [[nodiscard]] std::string file(const std::string& name) const { return path_ + "/" + name; }
  [[nodiscard]] const std::string& path() const { return path_; }
  // Nothing if there is no whole journal.
  [[nodiscard]] std::optional<JournalEntry> read_journal() const;
  Status write_journal(const JournalEntry& entry) const;
  // What was built so far, but not the lock.
  void clear() const;
  void remove();
  void unlock() { lock_.reset(); }

 private:
  Result<bool> try_lock();
  std::string target_;
  std::string path_;
  Fd lock_;
};

}  // namespace hpcore::dataset
