// SPDX-License-Identifier: Apache-2.0
// Headers that somebody made to hurt: each is refused by name, before anything is derived, read or
// allocated for it.
#include <gmock/gmock.h>

#include "base/endian.h"
#include "luks/header_fixture_test.h"
#include "luks/luks2_document.h"

namespace ringdisk::luks {
namespace {

using ::testing::HasSubstr;

// --- LUKS2: the JSON

// Two key slots, a token, one segment behind 1 MiB.
std::string good_json() {
  VolumeFacts facts;
  facts.payload_offset = ByteCount(1 << 20);
  facts.digest.kdf.iterations = 1000;
  facts.digest.kdf.salt.resize(32);
  facts.digest.digest.resize(32);
  const uint64_t header = kLuks2HeaderBytesMin;
  Json json = new_luks2_document(facts, header, (1 << 20) - 2 * header);
  KeySlot slot;
  slot.kdf.kind = KdfKind::kArgon2id;
  slot.kdf.iterations = 4;
  slot.kdf.memory_kib = 1024;
  slot.kdf.lanes = 1;
  slot.kdf.salt.resize(32);
  slot.area_key_bytes = slot.key_bytes = 64;
  slot.area = HostOffset(2 * header);
  slot.area_size = ByteCount(258'048);
  put_key_slot(json, slot, 0);
  slot.number = 1;
  slot.area += slot.area_size;
  put_key_slot(json, slot, 0);
  json.find("tokens")->set("0", parse_json(R"({"type":"t","keyslots":["1"]})").value());
  return encode_json(json);
}

// What is said of the JSON where `part` of it has become `other`.
std::string refusal_of(std::string_view part, std::string_view other) {
  std::string text = good_json();
  const size_t at = text.find(part);
  EXPECT_NE(at, std::string::npos) << part;
  if (at != std::string::npos) text.replace(at, part.size(), other);
  Diagnostics diagnostics;
  const Refusal refusal(diagnostics, 0);
  const Result<Json> json = parse_json(text);
  EXPECT_TRUE(json.ok()) << text;
  if (!json.ok()) return "no JSON";
  Result<Luks2Metadata> read = read_luks2_metadata(json.value(), kLuks2HeaderBytesMin, refusal);
  if (!read.ok()) return diagnostics.describe(read.error());
  const Result<void> supported = check_luks2_supported(read.value(), refusal);
  return supported.ok() ? "" : diagnostics.describe(supported.error());
}

TEST(HostileLuks2, TheOneThatIsChangedHereIsRight) {
  EXPECT_EQ(refusal_of("tokens", "tokens"), "");
}

TEST(HostileLuks2, UnknownRequirement) {
  EXPECT_THAT(refusal_of(R"("config":{)", R"("config":{"requirements":{"mandatory":["opal"]},)"),
              HasSubstr("the header requires 'opal'"));
}

TEST(HostileLuks2, ReencryptionUnderWay) {
  EXPECT_THAT(refusal_of(R"("config":{)",
                         R"("config":{"requirements":{"mandatory":["x","online-reencrypt-v2"]},)"),
              HasSubstr("re-encryption is under way"));
  EXPECT_THAT(refusal_of(R"("0":{"type":"luks2")", R"("0":{"type":"reencrypt")"),
              HasSubstr("re-encryption is under way"));
}

TEST(HostileLuks2, SegmentsThatAreNotSupported) {
  EXPECT_THAT(refusal_of(R"("type":"crypt")", R"("type":"linear")"), HasSubstr("type 'linear'"));
  EXPECT_THAT(refusal_of(R"("type":"crypt")", R"("type":"crypt","integrity":{"type":"x"})"),
              HasSubstr("integrity protection"));
  EXPECT_THAT(refusal_of(R"("segments":{)",
                         R"("segments":{"1":{"type":"linear","offset":"1048576","size":"512"},)"),
              HasSubstr("has 2 segments"));
}

TEST(HostileLuks2, AreasInOneAnother) {
  EXPECT_THAT(refusal_of(R"("offset":"290816")", R"("offset":"290304")"),
              HasSubstr("the areas of key slot 0 and key slot 1 lie in one another"));
}

TEST(HostileLuks2, AreasOutsideOfTheKeySlotArea) {
  constexpr std::string_view kOutside = "the area of key slot 0 lies outside";
  EXPECT_THAT(refusal_of(R"("offset":"32768")", R"("offset":"16384")"), HasSubstr(kOutside));
  EXPECT_THAT(refusal_of(R"("offset":"32768")", R"("offset":"1000000")"), HasSubstr(kOutside));
  EXPECT_THAT(refusal_of(R"("offset":"32768")", R"("offset":"18446744073709551615")"),
              HasSubstr(kOutside));
  EXPECT_THAT(refusal_of(R"("size":"258048")", R"("size":"18446744073709551615")"),
              HasSubstr(kOutside));
}

TEST(HostileLuks2, SegmentsThatAreNotNumberedFromZeroOn) {
  EXPECT_THAT(refusal_of(R"("segments":{"0")", R"("segments":{"1")"),
              HasSubstr("there is segment 1, but none of the number before it"));
  EXPECT_THAT(refusal_of(R"("segments":{"0":{)",
                         R"("segments":{"2":{"type":"x","offset":"1048576","size":"512"},"0":{)"),
              HasSubstr("there is segment 2, but none of the number before it"));
}

TEST(HostileLuks2, SegmentsOfReencryption) {
  EXPECT_THAT(refusal_of(R"("type":"crypt")", R"("type":"crypt","flags":["backup-final"])"),
              HasSubstr("has no segment but what re-encryption keeps"));
  EXPECT_THAT(refusal_of(R"("type":"crypt")", R"("type":"crypt","flags":["in-reencryption"])"),
              HasSubstr("re-encryption is under way"));
}

TEST(HostileLuks2, AKeySlotWithoutADigest) {
  EXPECT_THAT(refusal_of(R"("keyslots":["0","1"])", R"("keyslots":["1"])"),
              HasSubstr("key slot 0 belongs to 0 digests instead of one"));
}

TEST(HostileLuks2, AnAreaTooSmallForItsKey) {
  EXPECT_THAT(refusal_of(R"("size":"258048")", R"("size":"4096")"), HasSubstr("too small"));
}

TEST(HostileLuks2, SegmentsBeyondWhatAFileCanHave) {
  EXPECT_THAT(refusal_of(R"("offset":"1048576")", R"("offset":"18446744073709551104")"),
              HasSubstr("segment 0 ends beyond"));
  EXPECT_THAT(refusal_of(R"("size":"dynamic")", R"("size":"9223372036854775296")"),
              HasSubstr("segment 0 ends beyond"));
}

TEST(HostileLuks2, ASegmentWithinTheHeaderOrWithinASector) {
  EXPECT_THAT(refusal_of(R"("offset":"1048576")", R"("offset":"4096")"),
              HasSubstr("segment 0 begins within the header"));
  EXPECT_THAT(refusal_of(R"("offset":"1048576")", R"("offset":"1048577")"),
              HasSubstr("begin and end with a sector"));
  EXPECT_THAT(refusal_of(R"("size":"dynamic")", R"("size":"100")"),
              HasSubstr("begin and end with a sector"));
}

TEST(HostileLuks2, ReferencesToNothing) {
  EXPECT_THAT(refusal_of(R"("keyslots":["0","1"])", R"("keyslots":["0","7"])"),
              HasSubstr("digest 0 names key slot 7"));
  EXPECT_THAT(refusal_of(R"("segments":["0"])", R"("segments":["3"])"),
              HasSubstr("digest 0 names segment 3"));
  EXPECT_THAT(refusal_of(R"("keyslots":["1"])", R"("keyslots":["9"])"),
              HasSubstr("token 0 names key slot 9"));
  EXPECT_THAT(refusal_of(R"("segments":["0"])", R"("segments":[])"),
              HasSubstr("belongs to 0 digests"));
  EXPECT_THAT(refusal_of(R"("keyslots":["0","1"])", R"("keyslots":["0","0"])"),
              HasSubstr("names 0 twice"));
}

TEST(HostileLuks2, NumbersThatAreNone) {
  EXPECT_THAT(refusal_of(R"("32768")", "32768"), HasSubstr("'area.offset' is missing or no text"));
  EXPECT_THAT(refusal_of(R"("32768")", R"("-1")"), HasSubstr("is no number of 64 bits"));
  EXPECT_THAT(refusal_of(R"("32768")", R"("18446744073709551616")"),
              HasSubstr("is no number of 64 bits"));
  EXPECT_THAT(refusal_of(R"("time":4)", R"("time":4.5)"), HasSubstr("no whole number"));
  EXPECT_THAT(refusal_of(R"("time":4)", R"("time":"4")"), HasSubstr("no whole number"));
  EXPECT_THAT(refusal_of(R"("memory":1024)", R"("memory":4294967296)"),
              HasSubstr("'kdf.memory' is 4294967296"));
  EXPECT_THAT(refusal_of(R"("keyslots":{"0")", R"("keyslots":{"32")"),
              HasSubstr("'32' is no number"));
  EXPECT_THAT(refusal_of(R"("keyslots":{"0")", R"("keyslots":{"00")"),
              HasSubstr("'00' is no number"));
}

TEST(HostileLuks2, ValuesOutOfTheirBounds) {
  EXPECT_THAT(refusal_of(R"("stripes":4000)", R"("stripes":4294967295)"), HasSubstr("af.stripes"));
  EXPECT_THAT(refusal_of(R"("cpus":1)", R"("cpus":1000)"), HasSubstr("kdf.cpus"));
  EXPECT_THAT(refusal_of(R"("cpus":1)", R"("cpus":0)"), HasSubstr("kdf.cpus"));
  EXPECT_THAT(refusal_of(R"("sector_size":512)", R"("sector_size":8192)"),
              HasSubstr("sector_size"));
  EXPECT_THAT(refusal_of(R"("sector_size":512)", R"("sector_size":1536)"),
              HasSubstr("no power of two"));
  EXPECT_THAT(refusal_of(R"("key_size":64)", R"("key_size":0)"), HasSubstr("key_size"));
  EXPECT_THAT(refusal_of(R"("key_size":64)", R"("key_size":65536)"), HasSubstr("too small"));
  EXPECT_THAT(refusal_of(R"("salt":")", R"("salt":"*)"), HasSubstr("no base64"));
  EXPECT_THAT(refusal_of("aes-xts-plain64", ""), HasSubstr("'area.encryption' is empty"));
  EXPECT_THAT(refusal_of(R"("type":"luks2")", R"("type":"")"), HasSubstr("'type' is empty"));
  EXPECT_THAT(refusal_of("argon2id", ""), HasSubstr("'kdf.type' is empty"));
}

TEST(HostileLuks2, SizesThatAreNotThoseOfTheHeader) {
  EXPECT_THAT(refusal_of(R"("json_size":"12288")", R"("json_size":"12287")"),
              HasSubstr("is not the size of the JSON area"));
  EXPECT_THAT(
      refusal_of(R"("keyslots_size":"1015808")", R"("keyslots_size":"1152921504606846976")"),
      HasSubstr("'config.keyslots_size'"));
  EXPECT_THAT(refusal_of(R"("keyslots_size":"1015808")", R"("keyslots_size":"1019904")"),
              HasSubstr("segment 0 begins within the header"));
}

TEST(HostileLuks2, SectionsThatAreMissing) {
  for (const char* section : {"keyslots", "tokens", "segments", "digests", "config"}) {
    const std::string quoted = "\"" + std::string(section) + "\":{";
    EXPECT_THAT(refusal_of(quoted, "\"x\":{"), HasSubstr("'" + std::string(section) + "'"));
  }
}

// --- LUKS2: the binary front, on a disk

TEST(HostileLuks2, AFrontThatTellsOfMoreThanTheFileHas) {
  TestVolume volume(2);
  for (uint64_t copy : {uint64_t{0}, kLuks2HeaderBytesMin}) {
    std::array<std::byte, 8> size;
    store_be64(size.data(), kLuks2HeaderBytesMax);
    volume.disk().poke(copy + 8, size);
  }
  const Result<void> opened = volume.open("first passphrase");
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().kind, ErrorKind::kCorrupt);
  EXPECT_THAT(volume.text_of(opened), HasSubstr("the file ends within its LUKS2 header"));
}

TEST(HostileLuks2, AnUnknownVersion) {
  TestVolume volume(2);
  volume.change_byte(6);
  volume.change_byte(kLuks2HeaderBytesMin + 6);
  const Result<void> opened = volume.open("first passphrase");
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().kind, ErrorKind::kUnsupported);
  EXPECT_THAT(volume.text_of(opened), HasSubstr("LUKS version 4098 is not known"));
}

TEST(HostileLuks2, TextBehindTheEndOfTheJson) {
  Luks2Binary binary;
  std::vector<std::byte> copy = encode_luks2_copy(binary, Luks2Copy::kFirst, "{}").value();
  Diagnostics diagnostics;
  const Refusal refusal(diagnostics, 0);
  EXPECT_EQ(luks2_json_text(copy, refusal).value(), "{}");
  copy.back() = std::byte{'x'};
  EXPECT_FALSE(luks2_json_text(copy, refusal).ok());
  std::fill(copy.begin() + kLuks2BinaryBytes, copy.end(), std::byte{'x'});
  EXPECT_FALSE(luks2_json_text(copy, refusal).ok());
}

// --- LUKS1

// What is said of a LUKS1 header where the four bytes at `at` have become `value`.
std::string refusal_of_luks1(size_t at, uint32_t value) {
  TestVolume volume(1);
  std::array<std::byte, 4> bytes;
  store_be32(bytes.data(), value);
  volume.disk().poke(at, bytes);
  return volume.text_of(volume.open("first passphrase"));
}

TEST(HostileLuks1, FieldsOutOfTheirBounds) {
  EXPECT_THAT(refusal_of_luks1(8, 0xff00ff00), HasSubstr("as its cipher"));
  EXPECT_THAT(refusal_of_luks1(72, 0x6d643600), HasSubstr("the hash 'md6'"));
  EXPECT_THAT(refusal_of_luks1(108, 0), HasSubstr("a key of 0 bytes"));
  EXPECT_THAT(refusal_of_luks1(108, 0xffffffff), HasSubstr("a key of 4294967295 bytes"));
  EXPECT_THAT(refusal_of_luks1(164, 0), HasSubstr("no iterations"));
  EXPECT_THAT(refusal_of_luks1(164, 0xffffffff), HasSubstr("asks for 4294967295 iterations"));
}

TEST(HostileLuks1, KeySlotsOutOfTheirBounds) {
  constexpr size_t kSlot1 = 208 + 48;
  EXPECT_THAT(refusal_of_luks1(208, 0xcafe),
              HasSubstr("key slot 0 could not be tried: it is neither in use nor free"));
  EXPECT_THAT(refusal_of_luks1(208 + 4, 0),
              HasSubstr("key slot 0 could not be tried: it has no iterations"));
  EXPECT_THAT(refusal_of_luks1(kSlot1 + 44, 0xffffffff), HasSubstr("4294967295 stripes"));
  EXPECT_THAT(refusal_of_luks1(kSlot1 + 40, 1), HasSubstr("key slot 1 lies within the header"));
  EXPECT_THAT(refusal_of_luks1(kSlot1 + 40, 0xffffffff), HasSubstr("reaches into the encrypted"));
  EXPECT_THAT(refusal_of_luks1(kSlot1 + 40, 9), HasSubstr("key slots 0 and 1 lie in one another"));
}

// As cryptsetup has it: one flipped bit of a slot locks nobody out who has another one.
TEST(HostileLuks1, ADamagedKeySlotCostsNoOther) {
  constexpr size_t kSlot1 = 208 + 48;
  TestVolume volume(1);
  std::array<std::byte, 4> damage;
  store_be32(damage.data(), 0x00ac71f2);
  volume.disk().poke(kSlot1, damage);
  EXPECT_EQ(volume.slot_of("first passphrase"), 0);
  auto add = [&](HeaderWindow window) -> Task<void> {
    return [](const World& world, HeaderWindow header) -> Task<void> {
      NewKey key = tested_key(1, "second passphrase");
      const uint32_t slot = co_await add_key(world, header, by_passphrase("first passphrase"), key);
      EXPECT_EQ(slot, 2U) << "the damaged one may hold a key";
    }(volume.world(), window);
  };
  ASSERT_TRUE(volume.run(add).ok());
  EXPECT_EQ(load_be32(volume.content(kSlot1, 4).data()), 0x00ac71f2U) << "nobody changes it";
  auto kill = [&](HeaderWindow window) {
    return kill_slot(volume.world(), window, 1, std::nullopt, false);
  };
  ASSERT_TRUE(volume.run(kill).ok());
  EXPECT_EQ(load_be32(volume.content(kSlot1, 4).data()), 0x0000deadU);
  EXPECT_EQ(volume.slot_of("second passphrase"), 2);
}

TEST(HostileLuks1, AFileThatEndsWithinAKeySlot) {
  FormatRequest request = tested_request(1);
  request.is_detached = true;
  request.payload_offset.reset();
  sim::SimWorld world;
  sim::SimDisk disk(sim::SimDiskOptions::file(), 1);
  auto cut = [&](HeaderWindow window) -> Task<void> {
    return [](const World& there, HeaderWindow header, FormatRequest wanted) -> Task<void> {
      co_await format_only(there, header, wanted);
      co_await header.storage().resize(ByteCount(30'000));
      Unlock with = by_passphrase("first passphrase");
      Result<LuksVolume> opened = co_await unlock(there, header, with).result();
      EXPECT_FALSE(opened.ok());
      const std::string text = there.diagnostics.describe(opened.error());
      EXPECT_THAT(text, HasSubstr("the file ends within key slot 0"));
    }(world.world(), window, request);
  };
  auto root = [&](Shard&) { return use_header(header_storage(disk), cut); };
  EXPECT_TRUE(world.run(root).ok());
}

}  // namespace
}  // namespace ringdisk::luks
