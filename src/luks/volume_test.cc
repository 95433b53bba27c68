// SPDX-License-Identifier: Apache-2.0
// Volumes made and opened: by passphrase, by key, from damaged headers, within limits.
#include "luks/volume.h"

#include <gmock/gmock.h>

#include "base/endian.h"
#include "luks/header_fixture_test.h"

namespace ringdisk::luks {
namespace {

using ::testing::HasSubstr;

Task<void> add_second(const World& world, HeaderWindow window) {
  NewKey key = tested_key(2, "second passphrase");
  Unlock with = by_passphrase("first passphrase");
  uint32_t slot = co_await add_key(world, window, with, key);
  EXPECT_EQ(slot, 1u);
}

class BothVersions : public ::testing::TestWithParam<uint32_t> {};
INSTANTIATE_TEST_SUITE_P(Luks, BothVersions, ::testing::Values(1u, 2u));

TEST_P(BothVersions, OpenWithThePassphraseTheyWereMadeWith) {
  TestVolume volume(GetParam());
  ASSERT_TRUE(volume.open("first passphrase").ok());
  EXPECT_EQ(volume.slot, 0);
  EXPECT_EQ(volume.key.size(), size_t{16});
}

TEST_P(BothVersions, RefuseAWrongPassphraseInOneSentence) {
  TestVolume volume(GetParam());
  const Result<void> opened = volume.open("second passphrase");
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().kind, ErrorKind::kDenied);
  EXPECT_EQ(volume.text_of(opened), "no key slot opens with this passphrase");
  EXPECT_EQ(volume.slot_of(""), -1);
  EXPECT_EQ(volume.slot_of("first passphras"), -1);
  EXPECT_EQ(volume.slot_of("first passphrase "), -1);
}

TEST_P(BothVersions, OpenWithTheVolumeKey) {
  FormatRequest request = tested_request(GetParam());
  const std::string key = "0123456789abcdef";
  request.volume_key = as_bytes(key);
  TestVolume volume(request);
  Unlock with;
  with.volume_key = as_bytes(key);
  ASSERT_TRUE(volume.open(with).ok());
  EXPECT_EQ(volume.slot, -1);
  EXPECT_EQ(as_text(volume.key), key);
  ASSERT_TRUE(volume.open("first passphrase").ok());
  EXPECT_EQ(as_text(volume.key), key);
  with.volume_key = as_bytes("0123456789abcdeF");
  const Result<void> wrong = volume.open(with);
  ASSERT_FALSE(wrong.ok());
  EXPECT_EQ(wrong.error().kind, ErrorKind::kDenied);
  EXPECT_EQ(volume.text_of(wrong), "this is not the key of the volume");
}

TEST_P(BothVersions, TryOneSlotAloneWhenAskedTo) {
  TestVolume volume(GetParam());
  Unlock with = by_passphrase("first passphrase");
  with.slot = 0;
  EXPECT_TRUE(volume.open(with).ok());
  with.slot = 3;
  const Result<void> opened = volume.open(with);
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().kind, ErrorKind::kNotFound);
  EXPECT_EQ(volume.text_of(opened), "key slot 3 is not in use");
}

TEST_P(BothVersions, MakeEveryVolumeAnotherKeyAndUuid) {
  TestVolume one(GetParam()), other(GetParam());
  ASSERT_TRUE(one.open("first passphrase").ok());
  ASSERT_TRUE(other.open("first passphrase").ok());
  EXPECT_FALSE(one.key == other.key);
  EXPECT_FALSE(one.content(168, 36) == other.content(168, 36));
}

TEST_P(BothVersions, OpenWhateverCipherHashAndKdfTheyHave) {
  struct Kind {
    const char* cipher;
    size_t key_bytes;
    Hash hash;
    KdfKind kdf;
  };
  const Kind kinds[] = {
      {"aes-xts-plain64", 64, Hash::kSha256, KdfKind::kPbkdf2},
      {"aes-xts-plain64", 32, Hash::kSha512, KdfKind::kPbkdf2},
      {"aes-cbc-essiv:sha256", 32, Hash::kSha1, KdfKind::kPbkdf2},
      {"aes-xts-plain64", 64, Hash::kSha512, KdfKind::kArgon2i},
      {"aes-xts-plain64", 64, Hash::kRipemd160, KdfKind::kArgon2id},
  };
  for (const Kind& kind : kinds) {
    if (GetParam() == 1 && kind.kdf != KdfKind::kPbkdf2) continue;
    FormatRequest request = tested_request(GetParam());
    request.cipher = CipherSpec::parse(kind.cipher).value();
    request.key_bytes = kind.key_bytes;
    request.hash = kind.hash;
    request.kdf.kind = kind.kdf;
    request.kdf.iterations = kPbkdf2IterationsMin;
    if (kind.kdf != KdfKind::kPbkdf2) request.kdf.iterations = kArgon2PassesMin;
    request.payload_offset.reset();
    TestVolume volume(request);
    EXPECT_EQ(volume.slot_of("first passphrase"), 0) << kind.cipher;
    EXPECT_EQ(volume.key.size(), kind.key_bytes);
  }
}

TEST_P(BothVersions, AreNotThereWhereNothingIs) {
  TestVolume volume(GetParam());
  volume.change_byte(2);
  if (GetParam() == 2) volume.change_byte(kLuks2HeaderBytesMin);
  const Result<void> opened = volume.open("first passphrase");
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().kind, ErrorKind::kInvalid);
  EXPECT_EQ(volume.text_of(opened), "there is no LUKS header");
}

TEST_P(BothVersions, RefuseADigestThatCostsTooMuch) {
  TestVolume volume(GetParam());
  Unlock with = by_passphrase("first passphrase");
  with.limits.pbkdf2_iterations_max = 999;
  const Result<void> opened = volume.open(with);
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().kind, ErrorKind::kLimit);
  EXPECT_THAT(volume.text_of(opened), HasSubstr("the volume's digest asks for 1000 iterations"));
}

TEST(NoHeader, IsInAFileOfAFewBytes) {
  sim::SimWorld world;
  for (size_t bytes : {size_t{0}, size_t{4}, size_t{600}, size_t{5000}}) {
    sim::SimDisk disk(sim::SimDiskOptions::file(), 1);
    const std::vector<std::byte> content(bytes, std::byte{'x'});
    disk.poke(0, content);
    int slot = -1;
    std::vector<std::byte> key;
    auto use = [&](HeaderWindow window) {
      return unlock_into(world.world(), window, by_passphrase("x"), slot, key);
    };
    auto root = [&](Shard&) { return use_header(header_storage(disk), use); };
    const Result<void> opened = world.run(root);
    ASSERT_FALSE(opened.ok());
    EXPECT_EQ(opened.error().kind, ErrorKind::kInvalid) << bytes;
  }
}

TEST(Luks1, RefusesIterationsAboveTheLimit) {
  FormatRequest request = tested_request(1);
  request.kdf.iterations = 20'000;
  TestVolume volume(request);
  Unlock with = by_passphrase("first passphrase");
  with.limits.pbkdf2_iterations_max = 10'000;
  const Result<void> opened = volume.open(with);
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().kind, ErrorKind::kLimit);
  EXPECT_THAT(
      volume.text_of(opened),
      HasSubstr("key slot 0 asks for 20000 iterations of PBKDF2; at most 10000 are allowed; "
                "kdf-iterations-max sets the limit"));
}

TEST(Luks2, RefusesMemoryAndPassesAboveTheLimit) {
  FormatRequest request = tested_request(2);
  request.kdf.memory_kib = 128;
  TestVolume volume(request);
  Unlock with = by_passphrase("first passphrase");
  with.limits.argon2_memory_kib_max = 64;
  Result<void> opened = volume.open(with);
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().kind, ErrorKind::kLimit);
  EXPECT_THAT(volume.text_of(opened), HasSubstr("asks for 128 KiB of memory"));
  with.limits = KdfLimits();
  with.limits.argon2_work_kib_max = 511;
  opened = volume.open(with);
  ASSERT_FALSE(opened.ok());
  EXPECT_THAT(volume.text_of(opened), HasSubstr("asks for 4 passes of Argon2 over 128 KiB"));
}

TEST(Luks2, OpensWithASlotWithinTheLimitsPastOneBeyond) {
  FormatRequest request = tested_request(2);
  request.kdf.memory_kib = 128;
  TestVolume volume(request);
  auto add = [&](HeaderWindow window) { return add_second(volume.world(), window); };
  ASSERT_TRUE(volume.run(add).ok());
  Unlock with = by_passphrase("second passphrase");
  with.limits.argon2_memory_kib_max = 64;
  ASSERT_TRUE(volume.open(with).ok());
  EXPECT_EQ(volume.slot, 1);
}

Task<void> give_first_slot_an_unknown_cipher(const World& world, HeaderWindow window) {
  LuksHeader header = co_await read_header(world, window);
  Json* area = header.luks2->json.find("keyslots")->find("0")->find("area");
  area->set("encryption", Json::of_text("rot13-xts-plain64"));
  co_await write_luks2_header(world, window, *header.luks2);
}

TEST(Luks2, OpensPastASlotWithACipherThatIsNotThere) {
  TestVolume volume(2);
  auto add = [&](HeaderWindow window) { return add_second(volume.world(), window); };
  ASSERT_TRUE(volume.run(add).ok());
  auto spoil = [&](HeaderWindow window) {
    return give_first_slot_an_unknown_cipher(volume.world(), window);
  };
  ASSERT_TRUE(volume.run(spoil).ok());
  EXPECT_EQ(volume.slot_of("second passphrase"), 1);
  const Result<void> opened = volume.open("first passphrase");
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().kind, ErrorKind::kUnsupported);
  EXPECT_THAT(volume.text_of(opened), HasSubstr("key slot 0 cannot be opened with 'rot13-xts"));
}

// --- two copies

uint64_t sequence_at(const TestVolume& volume, uint64_t copy) {
  return load_be64(volume.content(copy + 16, 8).data());
}

void expect_opens_and_is_repaired(TestVolume& volume, std::string_view passphrase) {
  ASSERT_TRUE(volume.open(passphrase).ok());
  Unlock with = by_passphrase(passphrase);
  const std::vector<std::byte> untouched = volume.content(0, 2 * kLuks2HeaderBytesMin);
  ASSERT_TRUE(volume.open(with).ok());
  EXPECT_TRUE(volume.content(0, untouched.size()) == untouched) << "opened for reading";
  with.repairs_header = true;
  ASSERT_TRUE(volume.open(with).ok());
  EXPECT_EQ(sequence_at(volume, 0), sequence_at(volume, kLuks2HeaderBytesMin));
  const size_t json = kLuks2HeaderBytesMin - kLuks2BinaryBytes;
  EXPECT_TRUE(volume.content(kLuks2BinaryBytes, json) ==
              volume.content(kLuks2HeaderBytesMin + kLuks2BinaryBytes, json));
  EXPECT_FALSE(volume.content(104, 64) == volume.content(kLuks2HeaderBytesMin + 104, 64));
  EXPECT_EQ(volume.slot_of(passphrase), 0);
}

TEST(Luks2, OpensFromTheSecondCopyAndRepairsTheFirst) {
  for (uint64_t at : {uint64_t{0}, uint64_t{7}, uint64_t{9}, uint64_t{100}, uint64_t{4100}}) {
    TestVolume volume(2);
    volume.change_byte(at);
    SCOPED_TRACE(at);
    expect_opens_and_is_repaired(volume, "first passphrase");
  }
}

TEST(Luks2, OpensFromTheFirstCopyAndRepairsTheSecond) {
  for (uint64_t at : {uint64_t{0}, uint64_t{258}, uint64_t{4100}}) {
    TestVolume volume(2);
    volume.change_byte(kLuks2HeaderBytesMin + at);
    SCOPED_TRACE(at);
    expect_opens_and_is_repaired(volume, "first passphrase");
  }
}

TEST(Luks2, FindsTheSecondCopyBehindALargeFirstOne) {
  FormatRequest request = tested_request(2);
  request.luks2_header_bytes = 128 << 10;
  TestVolume volume(request);
  volume.change_byte(1);
  EXPECT_EQ(volume.slot_of("first passphrase"), 0);
}

TEST(Luks2, TheNewerOfTwoRightCopiesCounts) {
  TestVolume volume(2);
  const std::vector<std::byte> old_second =
      volume.content(kLuks2HeaderBytesMin, kLuks2HeaderBytesMin);
  const std::vector<std::byte> old_first = volume.content(0, kLuks2HeaderBytesMin);
  auto add = [&](HeaderWindow window) { return add_second(volume.world(), window); };
  ASSERT_TRUE(volume.run(add).ok());
  volume.disk().poke(kLuks2HeaderBytesMin, old_second);
  EXPECT_EQ(volume.slot_of("second passphrase"), 1);
  expect_opens_and_is_repaired(volume, "first passphrase");
  volume.disk().poke(0, old_first);
  EXPECT_EQ(volume.slot_of("second passphrase"), 1);
  expect_opens_and_is_repaired(volume, "first passphrase");
}

TEST(Luks2, RefusesTwoDamagedCopies) {
  TestVolume volume(2);
  volume.change_byte(4100);
  volume.change_byte(kLuks2HeaderBytesMin + 4100);
  const Result<void> opened = volume.open("first passphrase");
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().kind, ErrorKind::kCorrupt);
  EXPECT_THAT(volume.text_of(opened), HasSubstr("does not have the checksum"));
}

TEST(Luks2, DoesNotTakeAMisplacedCopy) {
  TestVolume volume(2);
  const std::vector<std::byte> second = volume.content(kLuks2HeaderBytesMin, kLuks2HeaderBytesMin);
  volume.disk().poke(2 * kLuks2HeaderBytesMin, second);
  volume.change_byte(0);
  volume.change_byte(kLuks2HeaderBytesMin);
  EXPECT_FALSE(volume.open("first passphrase").ok());
}

// --- a part of a storage

Task<void> use_window(const World& world, StorageAccess& storage, uint32_t version) {
  // As in a qcow2 image: from some cluster on, so long and no longer.
  const HeaderWindow window(storage, HostOffset(192 << 10), ByteCount(1 << 20));
  FormatRequest request = tested_request(version);
  co_await format_only(world, window, request);
  int slot = -1;
  std::vector<std::byte> key;
  Unlock with = by_passphrase("first passphrase");
  co_await unlock_into(world, window, with, slot, key);
  EXPECT_EQ(slot, 0);
  const HeaderWindow short_one(storage, HostOffset(192 << 10), ByteCount(20 << 10));
  Result<void> formatted = co_await format_only(world, short_one, request).result();
  EXPECT_FALSE(formatted.ok());
  EXPECT_EQ(formatted.error().kind, ErrorKind::kNoSpace);
  // What was there is whole still.
  co_await unlock_into(world, window, with, slot, key);
}

TEST_P(BothVersions, LiveInAPartOfAStorage) {
  sim::SimWorld world;
  sim::SimDisk disk(sim::SimDiskOptions::file(), 1);
  const std::vector<std::byte> others(2 << 20, std::byte{0x77});
  disk.poke(0, others);
  auto use = [&](HeaderWindow whole) {
    return use_window(world.world(), whole.storage(), GetParam());
  };
  auto root = [&](Shard&) { return use_header(header_storage(disk), use); };
  const Result<void> used = world.run(root);
  EXPECT_TRUE(used.ok()) << (used.ok() ? "" : world.diagnostics().describe(used.error()));
  std::vector<std::byte> now(others.size());
  disk.peek(0, now);
  const Bytes all(now), before(others);
  constexpr size_t kBegin = 192 << 10, kEnd = kBegin + (1 << 20);
  EXPECT_TRUE(std::equal(all.begin(), all.begin() + kBegin, before.begin()));
  EXPECT_TRUE(std::equal(all.begin() + kEnd, all.end(), before.begin() + kEnd));
  EXPECT_EQ(disk.size(), others.size());
}

// --- payload

TEST(Payload, EndsWithTheFileAndNotBefore) {
  sim::SimWorld world;
  LuksVolume volume;
  volume.payload_offset = ByteCount(4096);
  volume.sector_size = 4096;
  auto size = [&](uint64_t bytes, bool is_detached) {
    return payload_size(world.world(), 0, volume, ByteCount(bytes), is_detached);
  };
  EXPECT_EQ(size(12288, false).value(), ByteCount(8192));
  EXPECT_EQ(size(12288 + 512, false).error().kind, ErrorKind::kCorrupt);
  EXPECT_EQ(size(4096, false).error().kind, ErrorKind::kCorrupt);
  EXPECT_EQ(size(0, false).error().kind, ErrorKind::kCorrupt);
  volume.payload_size = ByteCount(8192);
  EXPECT_EQ(size(1 << 20, false).value(), ByteCount(8192));
  EXPECT_EQ(size(8192, false).error().kind, ErrorKind::kCorrupt);
  volume.payload_offset = ByteCount(0);
  EXPECT_EQ(size(8192, false).error().kind, ErrorKind::kCorrupt);
  EXPECT_EQ(size(8192, true).value(), ByteCount(8192));
}

}  // namespace
}  // namespace ringdisk::luks
