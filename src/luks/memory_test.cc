// SPDX-License-Identifier: Apache-2.0
// What a thief of memory finds: a process makes a volume, opens it, adds and changes keys; neither
// while the volume is open, in what a core dump would hold, nor afterwards, in all that it can
// write to, is there a passphrase, the volume key, or a part of either.
//
// The process is a child, so that nothing of other tests lies in its memory. What is looked for is
// made there at random and kept by the scanner only masked, or it would find itself.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <fstream>

#include "crypto/random_bytes.h"
#include "luks/header_fixture_test.h"

namespace ringdisk::luks {
namespace {

// A sanitizer's shadow is terabytes of memory that can be written to, and its allocator keeps what
// was freed: the builds without one look.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kHasShadow = true;
#elif defined(__has_feature)
constexpr bool kHasShadow = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
constexpr bool kHasShadow = false;
#endif

constexpr size_t kPartBytes = 12;
constexpr std::byte kMask{0xa5};

// A part of a secret, masked.
using Part = std::array<std::byte, kPartBytes>;

// What is looked for. Its own memory is not looked at: it is masked.
class Scanner {
 public:
  void look_for(Bytes secret) {
    for (size_t at : {size_t{0}, secret.size() - kPartBytes}) {
      Part part;
      for (size_t i = 0; i < kPartBytes; ++i) part[i] = secret[at + i] ^ kMask;
      parts_.push_back(part);
    }
  }

  // Finds in all memory that the process can write to; with `as_core_dump` not in what is left out
  // of one. Each is told on standard error by its mapping.
  size_t scan(bool as_core_dump) {
    const int memory = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
    CHECK_GE(memory, 0);
    size_t finds = 0;
    for (const Mapping& mapping : mappings()) {
      if (as_core_dump && mapping.is_left_out) continue;
      // All but the buffer, which holds what was read last.
      Mapping before = mapping, behind = mapping;
      before.end = std::clamp(own_begin(), mapping.begin, mapping.end);
      behind.begin = std::clamp(own_end(), mapping.begin, mapping.end);
      finds += scan_mapping(memory, before) + scan_mapping(memory, behind);
    }
    close(memory);
    return finds;
  }

 private:
  struct Mapping {
    uint64_t begin = 0, end = 0;
    bool is_left_out = false;
    std::string line;
  };

  static std::vector<Mapping> mappings() {
    std::vector<Mapping> found;
    std::ifstream smaps("/proc/self/smaps");
    bool is_writable = false;
    for (std::string line; std::getline(smaps, line);) {
      Mapping mapping;
      const char* text_end = line.data() + line.size();
      const auto first = std::from_chars(line.data(), text_end, mapping.begin, 16);
      if (first.ec == std::errc() && first.ptr != text_end && *first.ptr == '-') {
        const auto second = std::from_chars(first.ptr + 1, text_end, mapping.end, 16);
        is_writable = second.ec == std::errc() && std::string_view(second.ptr).starts_with(" rw");
        mapping.line = line;
        if (is_writable) found.push_back(mapping);
      } else if (is_writable && line.starts_with("VmFlags:")) {
        found.back().is_left_out = (line + " ").find(" dd ") != std::string::npos;
      }
    }
    return found;
  }

  size_t scan_mapping(int memory, const Mapping& mapping) {
    size_t finds = 0;
    uint64_t at = mapping.begin;
    while (at < mapping.end) {
      const size_t wanted = std::min<uint64_t>(buffer_.size(), mapping.end - at);
      const ssize_t got = pread(memory, buffer_.data(), wanted, static_cast<off_t>(at));
      if (got <= 0) break;  // a guard page
      const size_t here = find_in(Bytes(buffer_).first(static_cast<size_t>(got)));
      if (here != 0) fprintf(stderr, "found in %s\n", mapping.line.c_str());
      finds += here;
      wipe(buffer_);
      if (static_cast<size_t>(got) <= kPartBytes) break;
      const bool is_last = at + static_cast<uint64_t>(got) >= mapping.end;
      at += static_cast<uint64_t>(got) - (is_last ? 0 : kPartBytes);
    }
    return finds;
  }

  uint64_t own_begin() const {
    // why: the address itself is what is compared
    return reinterpret_cast<uint64_t>(buffer_.data());
  }
  uint64_t own_end() const { return own_begin() + buffer_.size(); }

  size_t find_in(Bytes bytes) const {
    size_t finds = 0;
    for (const Part& part : parts_) {
      for (size_t at = 0; at + kPartBytes <= bytes.size(); ++at) {
        if ((bytes[at] ^ kMask) != part[0]) continue;
        size_t same = 1;
        while (same < kPartBytes && (bytes[at + same] ^ kMask) == part[same]) ++same;
        finds += same == kPartBytes;
      }
    }
    return finds;
  }

  std::vector<Part> parts_;
  std::vector<std::byte> buffer_ = std::vector<std::byte>(4 << 20);
};

SecretBytes random_secret(size_t bytes, Scanner& scanner) {
  SecretBytes secret = SecretBytes::make(bytes).value();
  CHECK(fill_with_secret_random(secret.bytes()).ok());
  scanner.look_for(secret.bytes());
  return secret;
}

struct Found {
  size_t in_dump_while_open = 0, afterwards = 0;
};

Task<void> use_volume(const World& world, HeaderWindow window, uint32_t version, KdfKind kdf,
                      Scanner& scanner, Found& found) {
  const SecretBytes first = random_secret(40, scanner), second = random_secret(24, scanner);
  const SecretBytes third = random_secret(100, scanner), key = random_secret(64, scanner);
  FormatRequest request = tested_request(version);
  request.cipher = CipherSpec();
  request.key_bytes = key.size();
  request.volume_key = key.bytes();
  request.passphrase = first.bytes();
  request.payload_offset.reset();
  request.kdf.kind = kdf;
  request.kdf.iterations = kdf == KdfKind::kPbkdf2 ? kPbkdf2IterationsMin : kArgon2PassesMin;
  co_await format_only(world, window, request);
  Unlock with;
  with.passphrase = first.bytes();
  NewKey new_key;
  new_key.passphrase = second.bytes();
  new_key.kdf = request.kdf;
  uint32_t slot = co_await add_key(world, window, with, new_key);
  CHECK_EQ(slot, 1u);
  new_key.passphrase = third.bytes();
  slot = co_await change_key(world, window, with, new_key);
  CHECK_EQ(slot, 0u);
  with.passphrase = third.bytes();
  LuksVolume volume = co_await unlock(world, window, with);
  CHECK(equal_in_constant_time(std::as_const(volume.key).bytes(), key.bytes()));
  with.passphrase = as_bytes("none of them");
  Result<LuksVolume> wrong = co_await unlock(world, window, with).result();
  CHECK(!wrong.ok());
  found.in_dump_while_open = scanner.scan(true);
}

// 0: nothing was found; in the child.
int use_and_scan(uint32_t version, KdfKind kdf) {
  Scanner scanner;
  Found found;
  {
    sim::SimWorld world(1);
    sim::SimDisk disk(sim::SimDiskOptions::file(), 1);
    auto use = [&](HeaderWindow window) {
      return use_volume(world.world(), window, version, kdf, scanner, found);
    };
    auto root = [&](Shard&) { return use_header(header_storage(disk), use); };
    CHECK(world.run(root).ok());
    found.afterwards = scanner.scan(false);
  }
  fprintf(stderr, "finds: %zu in a core dump, %zu afterwards\n", found.in_dump_while_open,
          found.afterwards);
  return found.in_dump_while_open + found.afterwards == 0 ? 0 : 1;
}

int status_of_child(int (*run)()) {
  const pid_t child = fork();
  if (child == 0) _exit(run());
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

class Memory : public ::testing::Test {
 protected:
  void SetUp() override {
    if (kHasShadow) GTEST_SKIP() << "a sanitizer's shadow memory is too large to look through";
  }
};

TEST_F(Memory, HoldsNoSecretOfALuks1Volume) {
  EXPECT_EQ(status_of_child([] { return use_and_scan(1, KdfKind::kPbkdf2); }), 0);
}
TEST_F(Memory, HoldsNoSecretOfALuks2VolumeWithPbkdf2) {
  EXPECT_EQ(status_of_child([] { return use_and_scan(2, KdfKind::kPbkdf2); }), 0);
}
TEST_F(Memory, HoldsNoSecretOfALuks2VolumeWithArgon2) {
  EXPECT_EQ(status_of_child([] { return use_and_scan(2, KdfKind::kArgon2id); }), 0);
}

// The scanner is right: it finds what lies about.
int leave_a_secret() {
  Scanner scanner;
  const SecretBytes secret = random_secret(32, scanner);
  const size_t before = scanner.scan(true);
  const std::vector<std::byte> copy(secret.bytes().begin(), secret.bytes().end());
  const size_t with_copy = scanner.scan(true);
  const size_t with_locked = scanner.scan(false);
  return before == 0 && with_copy >= 2 && with_locked >= 4 && !copy.empty() ? 0 : 1;
}

TEST_F(Memory, IsLookedAtByAScannerThatFinds) { EXPECT_EQ(status_of_child(&leave_a_secret), 0); }

}  // namespace
}  // namespace ringdisk::luks
