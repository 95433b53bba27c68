// SPDX-License-Identifier: Apache-2.0
//
// file_paths: which way should bytes reach a file on this file system and this kernel?
//
//   file_paths [--brief] [--seconds=S] [--rounds=N] [--only=TEXT] DIRECTORY|DEVICE
//
// In a directory it works on one unlinked file (gone whatever happens to the program); a block
// device it overwrites, so only with --overwrite-device. Each case of cases.cc is run by each of
// its ways in turn, round after round, every run in a child process; medians are printed.
// The answer it gave is docs/decisions/0004-how-bytes-reach-a-file.md.

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "cases.h"
#include "cell.h"
#include "ways.h"

namespace ringdisk::bench {

namespace {

constexpr uint64_t kFileBytes = 128 << 20;
constexpr uint64_t kExtendBytesMax = 256 << 20;
constexpr size_t kSamplesMax = 1 << 20;
constexpr double kStallSeconds = 1e-3;

struct Options {
  double seconds = 0.25;
  int rounds = 3;
  bool brief = false;
  bool overwrite_device = false;
  std::string only;
  std::string path;
};

std::span<std::byte> allocate_memory(size_t size) {
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) std::abort();
  for (size_t i = 0; i < size; i += 8) {  // nothing below us may take it for zeros
    const uint64_t word = (i + 1) * 0x9e3779b97f4a7c15u;
    std::memcpy(static_cast<std::byte*>(memory) + i, &word, sizeof word);
  }
  return {static_cast<std::byte*>(memory), size};
}

// The file all cells work on, and the state the last one left it in.
class WorkFile {
 public:
  int open(const Options& options) {
    struct stat status {};
    if (stat(options.path.c_str(), &status) != 0) return errno;
    is_device_ = S_ISBLK(status.st_mode);
    if (is_device_ && !options.overwrite_device) return EPERM;
    name_ = is_device_ ? options.path : options.path + "/file_paths.tmp";
    file_ = ::open(name_.c_str(), O_RDWR | O_CLOEXEC | (is_device_ ? 0 : O_CREAT | O_EXCL), 0600);
    if (file_ < 0) return errno;
    if (!is_device_) unlink(name_.c_str());
    return 0;
  }

  Kind kind() const {
    if (is_device_) return Kind::kDevice;
    struct statfs status {};
    fstatfs(file_, &status);
    const bool memory = status.f_type == TMPFS_MAGIC || status.f_type == RAMFS_MAGIC;
    return memory ? Kind::kMemory : Kind::kDisk;
  }

  int file() const { return file_; }

  // A second description of the same file, with other flags.
  int reopen(int flags) const {
    const std::string link = "/proc/self/fd/" + std::to_string(file_);
    return ::open(link.c_str(), O_RDWR | O_CLOEXEC | flags);
  }

  void prepare(Start start) {
    const bool written = start == Start::kCached || start == Start::kCold;
    if (!written) {
      [[maybe_unused]] int ignored = ftruncate(file_, 0);
      if (start != Start::kEmpty) ignored = ftruncate(file_, kFileBytes);
      if (start == Start::kUnwritten) ignored = fallocate(file_, 0, 0, kFileBytes);
      fsync(file_);
      written_ = cached_ = false;
      return;
    }
    if (!written_ || (start == Start::kCached && !cached_)) for_each_mebibyte(!written_);
    written_ = true;
    fdatasync(file_);
    if (start == Start::kCold) posix_fadvise(file_, 0, 0, POSIX_FADV_DONTNEED);
    cached_ = start == Start::kCached;
  }

  void lost_its_blocks() { written_ = false; }

 private:
  // Writes or reads all of it, which leaves it in the page cache.
  void for_each_mebibyte(bool write) {
    static const std::span<std::byte> memory = allocate_memory(1 << 20);
    for (uint64_t offset = 0; offset < kFileBytes; offset += memory.size()) {
      const off_t at = static_cast<off_t>(offset);
      [[maybe_unused]] const ssize_t moved = write ? pwrite(file_, memory.data(), memory.size(), at)
                                                   : pread(file_, memory.data(), memory.size(), at);
    }
  }

  std::string name_;
  int file_ = -1;
  bool is_device_ = false;
  bool written_ = false;  // every block
  bool cached_ = false;   // every page
};

// One shard's share of a cell: its way, its memory, and what it counted.
class Runner {
 public:
  Runner(const Case& what, const Options& options, int file, uint32_t shard)
      : what_(what), options_(options), file_(file), shard_(shard) {}

  int open(const std::string& way) {
    way_ = make_way(way);
    if (way_ == nullptr) return EINVAL;
    memory_ = allocate_memory(size_t{what_.size} * what_.depth);
    if (what_.depth == 1) latencies_us_.reserve(kSamplesMax);
    return way_->open({.file = file_, .memory = memory_, .depth = what_.depth});
  }

  void run() {
    const double start = now_seconds();
    double now = start;
    const double end = start + options_.seconds;
    std::vector<uint32_t> free_slots;
    for (uint32_t slot = 0; slot < what_.depth; ++slot) free_slots.push_back(slot);
    std::vector<Completion> done(what_.depth);
    for (;;) {
      const double submitted = now;
      while (!free_slots.empty() && now < end && error_ == 0 && submit(free_slots.back())) {
        free_slots.pop_back();
      }
      if (what_.depth > 1) note_stall(now_seconds() - submitted);
      if (free_slots.size() == what_.depth) break;
      const size_t count = way_->wait(done);
      for (size_t i = 0; i < count; ++i) {
        free_slots.push_back(done[i].slot);
        check(done[i].result);
      }
      done_ += count;
      now = now_seconds();
      if (what_.depth == 1 && latencies_us_.size() < kSamplesMax) {
        latencies_us_.push_back(static_cast<float>((now - submitted) * 1e6));
      }
    }
    seconds_ = now - start;
  }

  void fill(Sample& sample) {
    if (error_ != 0) sample.error = error_;
    sample.per_second += static_cast<double>(done_) / seconds_;
    sample.submit_us = std::max(sample.submit_us, way_->longest_submit_us());
    if (what_.depth > 1) sample.stalled = stalled_seconds_ / seconds_;
    sample.in_place =
        done_ == 0 ? 0 : static_cast<double>(way_->count_in_place()) / static_cast<double>(done_);
    summarise_latency(latencies_us_, sample);
  }

 private:
  // False when the file has no block left that was not used yet.
  bool submit(uint32_t slot) {
    const bool extends = what_.start == Start::kEmpty;
    const uint64_t blocks = (extends ? kExtendBytesMax : kFileBytes) / what_.size;
    uint64_t index = next_++ * what_.shards + shard_;
    if (index >= blocks && what_.start != Start::kCached) return false;
    const uint64_t offset = place(index & (blocks - 1), blocks - 1) * what_.size;
    std::byte* buffer = memory_.data() + size_t{slot} * what_.size;
    if (what_.dirty) check(pwrite(file_, buffer, what_.size, static_cast<off_t>(offset)));
    way_->submit({what_.verb, slot, what_.size, offset, buffer});
    return true;
  }

  // Numbers of blocks are powers of two, so odd factors and the shift permute the indexes.
  uint64_t place(uint64_t index, uint64_t mask) const {
    if (what_.sequential) return index;
    index = (index * 0x9e3779b1u) & mask;
    index ^= index >> 5;
    return (index * 0x85ebca6bu) & mask;
  }

  void note_stall(double seconds) {
    if (seconds > kStallSeconds) stalled_seconds_ += seconds;
  }

  void check(int64_t result) {
    if (result < 0 && error_ == 0) error_ = static_cast<int>(-result);
  }

  const Case& what_;
  const Options& options_;
  const int file_;
  const uint32_t shard_;
  std::unique_ptr<Way> way_;
  std::span<std::byte> memory_;
  std::vector<float> latencies_us_;
  uint64_t next_ = 0;
  uint64_t done_ = 0;
  double seconds_ = 1;
  double stalled_seconds_ = 0;
  int error_ = 0;
};

void run_shard(Runner& runner, const std::string& way, std::barrier<>& steps, int& error) {
  error = runner.open(way);  // on its own thread: a ring has one submitter
  steps.arrive_and_wait();   // all open
  steps.arrive_and_wait();   // clock started
  if (error == 0) runner.run();
  steps.arrive_and_wait();  // all done
  steps.arrive_and_wait();  // clock stopped
}

Sample run_cell(const Case& what, const Options& options, int file, const std::string& way) {
  std::vector<Runner> runners;
  for (uint32_t i = 0; i < what.shards; ++i) runners.emplace_back(what, options, file, i);
  std::vector<int> errors(what.shards);
  std::barrier<> steps(static_cast<ptrdiff_t>(what.shards) + 1);
  std::vector<std::thread> shards;
  for (uint32_t i = 0; i < what.shards; ++i) {
    shards.emplace_back(run_shard, std::ref(runners[i]), way, std::ref(steps), std::ref(errors[i]));
  }
  std::atomic<bool> syncing = what.sync_beside;
  std::thread syncer([&syncing, file] {
    while (syncing) fdatasync(file);
  });
  steps.arrive_and_wait();
  const double start = now_seconds();
  const double cpu_start = cpu_seconds();
  steps.arrive_and_wait();
  steps.arrive_and_wait();
  Sample sample;
  sample.cpus = (cpu_seconds() - cpu_start) / (now_seconds() - start);
  sample.workers = count_uring_workers();
  steps.arrive_and_wait();
  syncing = false;
  syncer.join();
  for (std::thread& shard : shards) shard.join();
  for (Runner& runner : runners) runner.fill(sample);
  for (const int error : errors) sample.error = error != 0 ? error : sample.error;
  return sample;
}

void run_case(WorkFile& file, const Case& what, const Options& options) {
  const int descriptor = file.reopen(what.direct ? O_DIRECT : 0);
  if (descriptor < 0) {
    std::printf("%s: cannot reopen: %s\n", what.name.c_str(), std::strerror(errno));
    return;
  }
  std::vector<std::vector<Sample>> samples(what.ways.size());
  for (int round = 0; round < options.rounds; ++round) {
    for (size_t i = 0; i < what.ways.size(); ++i) {
      file.prepare(what.start);
      const std::string& way = what.ways[i];
      samples[i].push_back(run_in_child([&what, &options, descriptor, &way] {
        return run_cell(what, options, descriptor, way);
      }));
      const bool moves_bytes = what.verb == Verb::kRead || what.verb == Verb::kWrite;
      if (!moves_bytes && what.verb != Verb::kDataSync) file.lost_its_blocks();
    }
  }
  close(descriptor);
  for (size_t i = 0; i < what.ways.size(); ++i) {
    char label[96];
    std::snprintf(label, sizeof label, "%s, %u KiB, depth %u, %s", what.name.c_str(),
                  what.size / 1024, what.depth, what.ways[i].c_str());
    print_row(label, median_of(samples[i]));
  }
}

// What a queue would ask when it opens the file: does it know RWF_NOWAIT, for reads, for writes?
void print_probe(const WorkFile& file) {
  struct statfs status {};
  fstatfs(file.file(), &status);
  std::byte byte{};
  const iovec one{&byte, 1};
  const auto outcome = [](ssize_t moved) { return moved == 1 ? "yes" : std::strerror(errno); };
  std::printf("f_type 0x%lx", static_cast<unsigned long>(status.f_type));
  std::printf("; RWF_NOWAIT read: %s", outcome(preadv2(file.file(), &one, 1, 0, RWF_NOWAIT)));
  std::printf("; write: %s\n", outcome(pwritev2(file.file(), &one, 1, 0, RWF_NOWAIT)));
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    parse_number(argument, "--seconds=", options.seconds);
    parse_number(argument, "--rounds=", options.rounds);
    if (argument.starts_with("--only=")) options.only = argument.substr(7);
    if (argument == "--brief") options.brief = true;
    if (argument == "--overwrite-device") options.overwrite_device = true;
    if (!argument.starts_with("--")) options.path = argument;
  }
  return options;
}

int run(const Options& options) {
  WorkFile file;
  const int error = file.open(options);
  if (error != 0) {
    std::fprintf(stderr, "file_paths: %s: %s\n", options.path.c_str(), std::strerror(error));
    return 1;
  }
  file.prepare(Start::kCached);
  print_probe(file);
  print_header(options.path);
  for (const Case& what : make_cases(file.kind(), options.brief)) {
    if (what.name.find(options.only) == std::string::npos) continue;
    run_case(file, what, options);
  }
  return 0;
}

}  // namespace

}  // namespace ringdisk::bench

int main(int argc, char** argv) { return ringdisk::bench::run(ringdisk::bench::parse(argc, argv)); }
