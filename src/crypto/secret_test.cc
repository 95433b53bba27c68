// SPDX-License-Identifier: Apache-2.0
// Memory for secrets: wiped where the test can look, marked for the kernel as promised.
#include "crypto/secret.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <string>

namespace ringdisk {
namespace {

bool is_zero(Bytes bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte one) { return one == std::byte{0}; });
}

TEST(SecretBytes, WipesItsMemoryWhenItEnds) {
  std::array<std::byte, 64> memory;
  memory.fill(std::byte{0x5a});
  {
    SecretBytes secret = SecretBytes::over(memory);
    SecretBytes moved = std::move(secret);
    EXPECT_TRUE(secret.empty());
    EXPECT_EQ(moved.size(), memory.size());
    EXPECT_EQ(memory[63], std::byte{0x5a});
  }
  EXPECT_TRUE(is_zero(memory));
}

TEST(SecretBytes, WipesWhatAnAssignmentReplaces) {
  std::array<std::byte, 16> memory;
  memory.fill(std::byte{0x5a});
  SecretBytes secret = SecretBytes::over(memory);
  secret = SecretBytes();
  EXPECT_TRUE(is_zero(memory));
}

TEST(SecretBytes, WipesWhatItGivesUpWhenShortened) {
  std::array<std::byte, 16> memory;
  memory.fill(std::byte{0x5a});
  SecretBytes secret = SecretBytes::over(memory);
  secret.shorten(4);
  EXPECT_EQ(secret.size(), size_t{4});
  EXPECT_EQ(memory[3], std::byte{0x5a});
  EXPECT_TRUE(is_zero(Bytes(memory).subspan(4)));
}

TEST(WipeAtEnd, WipesAFunctionsOwnBuffer) {
  std::array<std::byte, 32> memory;
  memory.fill(std::byte{0x5a});
  { const WipeAtEnd wiped{MutableBytes(memory)}; }
  EXPECT_TRUE(is_zero(memory));
}

TEST(SecretBytes, BeginsAsZerosOnAPageOfItsOwn) {
  Result<SecretBytes> made = SecretBytes::make(100);
  ASSERT_TRUE(made.ok());
  EXPECT_EQ(made.value().size(), size_t{100});
  EXPECT_TRUE(is_zero(made.value().bytes()));
  // why: the address itself is what is looked at
  EXPECT_EQ(reinterpret_cast<uintptr_t>(made.value().bytes().data()) % 4096, uintptr_t{0});
}

// The line "VmFlags: …" of the mapping that holds `address`, as /proc/self/smaps has it.
std::string mapping_flags(const void* address) {
  // why: the address itself is what is looked for
  const auto wanted = reinterpret_cast<uintptr_t>(address);
  std::ifstream smaps("/proc/self/smaps");
  bool is_ours = false;
  for (std::string line; std::getline(smaps, line);) {
    unsigned long begin = 0, end = 0;
    const char* text = line.data();
    const char* text_end = text + line.size();
    const auto first = std::from_chars(text, text_end, begin, 16);
    if (first.ec == std::errc() && first.ptr != text_end && *first.ptr == '-') {
      const auto second = std::from_chars(first.ptr + 1, text_end, end, 16);
      if (second.ec == std::errc()) is_ours = begin <= wanted && wanted < end;
    }
    if (is_ours && line.starts_with("VmFlags:")) return line + " ";
  }
  return "";
}

TEST(SecretBytes, IsLeftOutOfCoreDumpsAndForks) {
  Result<SecretBytes> made = SecretBytes::make(64);
  ASSERT_TRUE(made.ok());
  const std::string flags = mapping_flags(made.value().bytes().data());
  ASSERT_FALSE(flags.empty());
  EXPECT_NE(flags.find(" dd "), std::string::npos) << flags;  // not in dumps
  EXPECT_NE(flags.find(" wf "), std::string::npos) << flags;  // wiped on fork
}

TEST(SecretBytes, IsZeroInAForkedChild) {
  Result<SecretBytes> made = SecretBytes::copy_of(as_bytes("a passphrase"));
  ASSERT_TRUE(made.ok());
  const Bytes bytes = std::as_const(made.value()).bytes();
  const pid_t child = fork();
  if (child == 0) _exit(is_zero(bytes) ? 0 : 1);
  ASSERT_GT(child, 0);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(as_text(bytes), "a passphrase");
}

TEST(ConstantTime, ComparesLengthsAndBytes) {
  EXPECT_TRUE(equal_in_constant_time(as_bytes("same"), as_bytes("same")));
  EXPECT_FALSE(equal_in_constant_time(as_bytes("same"), as_bytes("sama")));
  EXPECT_FALSE(equal_in_constant_time(as_bytes("same"), as_bytes("sam")));
  EXPECT_TRUE(equal_in_constant_time(Bytes(), Bytes()));
}

}  // namespace
}  // namespace ringdisk
