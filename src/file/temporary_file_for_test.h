// SPDX-License-Identifier: Apache-2.0
// TemporaryFile: a file of a test, looked at through plain system calls, and gone with its owner.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/random.h"

namespace ringdisk::file {

inline constexpr const char* kMemoryDirectory = "/dev/shm";  // tmpfs
inline constexpr const char* kDiskDirectory = "/var/tmp";    // what the machine's disk has

// `length` bytes whose every 512-byte block has its own content.
inline std::vector<std::byte> block_pattern(uint64_t seed, size_t length) {
  std::vector<std::byte> bytes(length);
  for (size_t block = 0; block * 512 < length; ++block) {
    Random random(seed + block);
    for (size_t at = block * 512; at < std::min(length, (block + 1) * 512);) {
      uint64_t word = random.next() | 1;
      for (size_t i = 0; i < 8 && at < length; ++i, ++at) {
        bytes[at] = static_cast<std::byte>(word >> (8 * i));
      }
    }
  }
  return bytes;
}

class TemporaryFile {
 public:
  explicit TemporaryFile(const char* directory)
      : path_(std::string(directory) + "/ringdisk-test-XXXXXX") {
    fd_ = mkstemp(path_.data());
    EXPECT_GE(fd_, 0) << path_;
  }
  TemporaryFile(TemporaryFile&& other) noexcept
      : path_(std::exchange(other.path_, {})), fd_(std::exchange(other.fd_, -1)) {}
  TemporaryFile& operator=(TemporaryFile&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~TemporaryFile() {
    if (fd_ >= 0) close(fd_);
    if (!path_.empty()) unlink(path_.c_str());
  }

  const std::string& path() const { return path_; }
  void resize(uint64_t size) { EXPECT_EQ(ftruncate(fd_, static_cast<off_t>(size)), 0); }
  uint64_t size() const {
    struct stat status {};
    EXPECT_EQ(fstat(fd_, &status), 0);
    return static_cast<uint64_t>(status.st_size);
  }
  void write(uint64_t offset, Bytes bytes) {
    const ssize_t count = pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    EXPECT_EQ(count, static_cast<ssize_t>(bytes.size()));
  }
  // Zeros behind the end.
  std::vector<std::byte> read(uint64_t offset, size_t length) const {
    std::vector<std::byte> bytes(length);
    for (size_t done = 0; done < length;) {
      const ssize_t count =
          pread(fd_, bytes.data() + done, length - done, static_cast<off_t>(offset + done));
      EXPECT_GE(count, 0);
      if (count <= 0) break;
      done += static_cast<size_t>(count);
    }
    return bytes;
  }

 private:
  std::string path_;
  int fd_ = -1;
};

}  // namespace ringdisk::file
