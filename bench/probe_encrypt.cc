// SPDX-License-Identifier: Apache-2.0
//
// probe_encrypt: the least that enciphering a file into another costs on this machine with every
// core.
//
//   probe_encrypt SOURCE TARGET
//
// As probe_copy on two threads, with AES-256-XTS over sectors of 512 bytes between pread and
// pwrite, by the kernel that ringdisk would choose and a fixed key: no format, no header.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "crypto/cpu_features.h"
#include "crypto/xts_kernel.h"

namespace {

using ringdisk::AesKernel;

constexpr size_t kBlockBytes = 256 << 10;
constexpr size_t kThreads = 2;

[[noreturn]] void fail(const char* what) {
  fprintf(stderr, "probe_encrypt: %s: %s\n", what, strerror(errno));
  _exit(1);
}

class Cipher {
 public:
  Cipher() {
    const AesKernel kernel = ringdisk::CpuFeatures::detect().aes();
    if (kernel == AesKernel::kNone) {
      fprintf(stderr, "probe_encrypt: this machine has no AES instructions\n");
      _exit(1);
    }
    function_ = kernel == AesKernel::kVaes512   ? ringdisk::xts_vaes512
                : kernel == AesKernel::kVaes256 ? ringdisk::xts_vaes256
                                                : ringdisk::xts_aesni;
    std::array<std::byte, 32> key{};
    ringdisk::expand_aes_key(key, encrypt_, decrypt_);
    key[0] = std::byte{1};
    ringdisk::expand_aes_key(key, tweak_, unused_);
  }
  void encrypt(uint64_t offset, std::byte* block, size_t bytes) const {
    ringdisk::XtsRoundKeys keys;
    keys.encrypt = encrypt_.data();
    keys.decrypt = decrypt_.data();
    keys.tweak = tweak_.data();
    keys.rounds = ringdisk::kAesRoundsMax;
    ringdisk::XtsWork work;
    work.first = offset / 512;
    work.number_mask = ~uint64_t{0};
    work.sector_size = 512;
    work.bytes = bytes / 512 * 512;
    work.source = work.target = block;
    function_(keys, work, true);
  }

 private:
  using Schedule = std::array<std::byte, ringdisk::kAesScheduleBytes>;
  Schedule encrypt_, decrypt_, tweak_, unused_;
  ringdisk::XtsFunction function_;
};

void run(const Cipher& cipher, int source, int target, uint64_t begin, uint64_t end) {
  std::vector<std::byte> block(kBlockBytes);
  for (uint64_t at = begin; at < end;) {
    const size_t wanted = end - at < kBlockBytes ? end - at : kBlockBytes;
    const ssize_t got = pread(source, block.data(), wanted, static_cast<off_t>(at));
    if (got <= 0) fail("read");
    cipher.encrypt(at, block.data(), static_cast<size_t>(got));
    if (pwrite(target, block.data(), static_cast<size_t>(got), static_cast<off_t>(at)) != got) {
      fail("write");
    }
    at += static_cast<uint64_t>(got);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: probe_encrypt SOURCE TARGET\n");
    return 2;
  }
  const int source = open(argv[1], O_RDONLY);
  struct stat status {};
  if (source < 0 || fstat(source, &status)) fail(argv[1]);
  const int target = open(argv[2], O_WRONLY | O_CREAT, 0644);
  if (target < 0 || ftruncate(target, status.st_size)) fail(argv[2]);
  const auto bytes = static_cast<uint64_t>(status.st_size);
  const uint64_t blocks = (bytes + kBlockBytes - 1) / kBlockBytes;
  const Cipher cipher;
  std::vector<std::thread> running;
  for (size_t i = 0; i < kThreads; ++i) {
    const uint64_t begin = blocks * i / kThreads * kBlockBytes;
    const uint64_t end = std::min(blocks * (i + 1) / kThreads * kBlockBytes, bytes);
    running.emplace_back(
        [&cipher, source, target, begin, end] { run(cipher, source, target, begin, end); });
  }
  for (std::thread& thread : running) thread.join();
  if (fdatasync(target) || close(target)) fail(argv[2]);
  return 0;
}
