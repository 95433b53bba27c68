// SPDX-License-Identifier: Apache-2.0
// Headers of programs that know more than this one, and disks that somebody has made something else
// of: what is not known makes nothing else unusable, and nothing is written that is not known to be
// wanted.
#include <gmock/gmock.h>

#include "base/endian.h"
#include "luks/header_fixture_test.h"

namespace ringdisk::luks {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kCopyBytes = kLuks2HeaderBytesMin;

Task<void> edit_json(const World& world, HeaderWindow window, std::function<void(Json&)> edit) {
  LuksHeader header = co_await read_header(world, window);
  edit(header.luks2->json);
  co_await write_luks2_header(world, window, *header.luks2);
}

Task<void> add_second_key(const World& world, HeaderWindow window) {
  NewKey key = tested_key(2, "second passphrase");
  const uint32_t slot =
      co_await add_key(world, window, by_passphrase("first passphrase"), std::move(key));
  EXPECT_EQ(slot, 1U);
}

// A LUKS2 volume with two passphrases, whose JSON somebody else writes.
class ForeignVolume : public TestVolume {
 public:
  ForeignVolume() : TestVolume(2) { EXPECT_TRUE(add_second_key_to_it().ok()); }

  Result<void> edit(std::function<void(Json&)> edit) {
    auto use = [&](HeaderWindow window) { return edit_json(world(), window, edit); };
    return run(use);
  }
  Result<void> add_second_key_to_it() {
    auto use = [&](HeaderWindow window) { return add_second_key(world(), window); };
    return run(use);
  }
  std::vector<std::byte> copies() const { return content(0, 2 * kCopyBytes); }
  // A right copy with that JSON; of what is there, the sequence number is 2.
  void poke_copy(Luks2Copy copy, uint64_t sequence, std::string_view json) {
    Luks2Binary binary;
    binary.sequence = sequence;
    const std::vector<std::byte> bytes = encode_luks2_copy(binary, copy, json).value();
    disk().poke(copy == Luks2Copy::kFirst ? 0 : kCopyBytes, bytes);
  }
};

Json& slot_of(Json& json, std::string_view number) { return *json.find("keyslots")->find(number); }

struct Unknown {
  const char* object;
  const char* field;
  const char* value;
  const char* why;
};

class UnknownAlgorithms : public ::testing::TestWithParam<Unknown> {};

TEST_P(UnknownAlgorithms, MakeTheirKeySlotUnusableAlone) {
  const Unknown& unknown = GetParam();
  ForeignVolume volume;
  auto spoil = [&](Json& json) {
    slot_of(json, "0").find(unknown.object)->set(unknown.field, Json::of_text(unknown.value));
  };
  ASSERT_TRUE(volume.edit(spoil).ok());
  EXPECT_EQ(volume.slot_of("second passphrase"), 1);
  const Result<void> opened = volume.open("first passphrase");
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().kind, ErrorKind::kUnsupported);
  EXPECT_THAT(volume.text_of(opened), HasSubstr("key slot 0 could not be tried"));
  EXPECT_THAT(volume.text_of(opened), HasSubstr(unknown.why));
}

INSTANTIATE_TEST_SUITE_P(
    Luks2, UnknownAlgorithms,
    ::testing::Values(Unknown{"kdf", "type", "scrypt", "its key derivation 'scrypt'"},
                      Unknown{"af", "hash", "md6", "it uses the hash 'md6'"},
                      Unknown{"area", "encryption", "capi:xts(ecb(aes))-plain64",
                              "its cipher 'capi:xts(ecb(aes))-plain64'"}));

TEST(UnknownKeySlot, IsToldOfWhenItIsAskedFor) {
  ForeignVolume volume;
  ASSERT_TRUE(
      volume.edit([](Json& json) { slot_of(json, "0").set("type", Json::of_text("hardware")); })
          .ok());
  Unlock with = by_passphrase("second passphrase");
  with.slot = 0;
  EXPECT_THAT(volume.text_of(volume.open(with)),
              HasSubstr("key slot 0 cannot be opened: it is of the type 'hardware'"));
}

TEST(UnknownCipher, OfTheDataIsUnsupportedAndNoDamage) {
  ForeignVolume volume;
  constexpr const char* kCipher = "capi:xts(ecb(aes-generic))-plain64";
  ASSERT_TRUE(volume
                  .edit([](Json& json) {
                    json.find("segments")->find("0")->set("encryption", Json::of_text(kCipher));
                  })
                  .ok());
  const Result<void> opened = volume.open("first passphrase");
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().kind, ErrorKind::kUnsupported);
  EXPECT_THAT(volume.text_of(opened), HasSubstr(kCipher));
}

// --- copies

// Too deep for our reader, and right.
std::string deep_json() {
  return R"({"tokens":)" + std::string(40, '[') + std::string(40, ']') + "}";
}

TEST(Copies, ANewerOneThatCannotBeReadIsNotTakenBack) {
  for (Luks2Copy copy : {Luks2Copy::kFirst, Luks2Copy::kSecond}) {
    ForeignVolume volume;
    volume.poke_copy(copy, 1000, deep_json());
    const std::vector<std::byte> before = volume.copies();
    Unlock with = by_passphrase("first passphrase");
    with.repairs_header = true;
    const Result<void> opened = volume.open(with);
    ASSERT_FALSE(opened.ok());
    EXPECT_EQ(opened.error().kind, ErrorKind::kLimit);
    EXPECT_TRUE(volume.copies() == before);
  }
}

TEST(Copies, AnOlderOneThatCannotBeReadIsWrittenAnew) {
  ForeignVolume volume;
  volume.poke_copy(Luks2Copy::kSecond, 1, deep_json());
  Unlock with = by_passphrase("first passphrase");
  with.repairs_header = true;
  ASSERT_TRUE(volume.open(with).ok());
  const std::vector<std::byte> copies = volume.copies();
  EXPECT_EQ(load_be64(&copies[kCopyBytes + 16]), load_be64(&copies[16]));
}

TEST(Copies, OneThatBeginsWithWhiteSpaceIsDamaged) {
  ForeignVolume volume;
  volume.poke_copy(Luks2Copy::kFirst, 1000, " {}");
  EXPECT_EQ(volume.slot_of("first passphrase"), 0);
}

// --- a disk that became another

TEST(OverwrittenFirstCopy, IsNotWrittenAnewUnasked) {
  ForeignVolume volume;
  std::vector<std::byte> other(kCopyBytes, std::byte{0});
  const std::string_view label = "LABELONE";
  copy_bytes(as_bytes(label), MutableBytes(other).subspan(512, label.size()));
  volume.disk().poke(0, other);
  const std::vector<std::byte> before = volume.copies();
  Unlock with = by_passphrase("first passphrase");
  with.repairs_header = true;
  EXPECT_TRUE(volume.open(with).ok());
  EXPECT_TRUE(volume.copies() == before) << "an open wrote over it";
  const Result<void> added = volume.add_second_key_to_it();
  ASSERT_FALSE(added.ok());
  EXPECT_EQ(added.error().kind, ErrorKind::kDenied);
  EXPECT_THAT(volume.text_of(added), HasSubstr("something else has been written over"));
  EXPECT_TRUE(volume.copies() == before) << "an edit wrote over it";
}

TEST(OverwrittenFirstCopy, AtTheSecondBlockAloneIsOneToo) {
  ForeignVolume volume;
  std::vector<std::byte> other(kCopyBytes, std::byte{0});
  other[kLuks2BinaryBytes] = std::byte{0xfc};  // a superblock of md begins there
  volume.disk().poke(0, other);
  const Result<void> added = volume.add_second_key_to_it();
  ASSERT_FALSE(added.ok());
  EXPECT_EQ(added.error().kind, ErrorKind::kDenied);
}

// --- what is left of a disk without its front

FormatRemains remains_of(ForeignVolume& volume) {
  FormatRemains remains;
  auto look = [&](HeaderWindow window) -> Task<void> {
    remains = co_await find_remains(volume.world(), window.storage());
  };
  EXPECT_TRUE(volume.run(look).ok());
  return remains;
}

TEST(Remains, AreTheSecondCopyOfAHeader) {
  for (size_t bytes : {size_t{6}, kLuks2BinaryBytes, size_t{kCopyBytes}}) {
    ForeignVolume volume;
    EXPECT_FALSE(remains_of(volume).are_there()) << "both copies are right";
    volume.disk().poke(0, std::vector<std::byte>(bytes));
    const FormatRemains remains = remains_of(volume);
    EXPECT_EQ(remains.format, "luks") << bytes;
    EXPECT_FALSE(remains.is_overwritten);
    volume.change_byte(kCopyBytes + 5000);
    EXPECT_FALSE(remains_of(volume).are_there()) << "what is not right counts for nothing";
  }
}

TEST(Remains, BehindSomethingElseAreOverwritten) {
  ForeignVolume volume;
  volume.disk().poke(0, std::vector<std::byte>(512, std::byte{0x55}));
  const FormatRemains remains = remains_of(volume);
  EXPECT_TRUE(remains.are_there());
  EXPECT_TRUE(remains.is_overwritten);
}

TEST(OverwrittenFirstCopy, ThatIsOnlyWipedIsWrittenAnew) {
  for (size_t bytes : {size_t{6}, kLuks2BinaryBytes}) {
    ForeignVolume volume;
    volume.disk().poke(0, std::vector<std::byte>(bytes));
    Unlock with = by_passphrase("first passphrase");
    with.repairs_header = true;
    ASSERT_TRUE(volume.open(with).ok());
    EXPECT_TRUE(has_luks_magic(volume.content(0, 512))) << bytes;
  }
}

}  // namespace
}  // namespace ringdisk::luks
