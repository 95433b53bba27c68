// SPDX-License-Identifier: Apache-2.0
// Reading headers of both versions, and choosing between the copies of LUKS2.
#include "luks/header.h"

#include <algorithm>

#include "base/endian.h"
#include "base/log.h"
#include "crypto/random_bytes.h"
#include "luks/text_field.h"

namespace ringdisk::luks {
namespace {

constexpr size_t kFrontBytes = kLuks2BinaryBytes;

std::string describe(const World& world, const Error& error) {
  Error without_node = error;
  without_node.node = 0;
  return world.diagnostics.describe(without_node);
}

std::string_view ordinal(Luks2Copy copy) { return copy == Luks2Copy::kFirst ? "first" : "second"; }

// One copy of a LUKS2 header, right as far as it goes.
struct ReadCopy {
  Luks2Binary binary;
  Json json;
  Luks2Metadata metadata;
  // It is as it was written, but not for us; there is no JSON then.
  std::optional<Error> unreadable;
};

Result<ReadCopy> parse_copy(Luks2Binary binary, Bytes bytes, const Refusal& refusal) {
  RETURN_IF_ERROR(check_luks2_checksum(binary, bytes, refusal));
  ASSIGN_OR_RETURN(const std::string_view text, luks2_json_text(bytes, refusal));
  ReadCopy copy;
  Result<Json> json = parse_json(text);
  if (!json.ok() && json.error().kind == ErrorKind::kLimit) {
    copy.unreadable = refusal.because(
        json.error(), "the metadata of the LUKS2 header is larger than any that is needed");
    copy.binary = std::move(binary);
    return copy;
  }
  // cryptsetup takes no white space in front of it.
  if (!json.ok() || !text.starts_with('{')) {
    return refusal.corrupt("the metadata of the LUKS2 header is no JSON");
  }
  copy.json = std::move(json).value();
  ASSIGN_OR_RETURN(copy.metadata, read_luks2_metadata(copy.json, binary.header_bytes, refusal));
  copy.binary = std::move(binary);
  return copy;
}

Task<ReadCopy> read_copy(const World& world, HeaderWindow window, Luks2Copy which,
                         uint64_t offset) {
  const Refusal refusal = window.refusal(world);
  std::vector<std::byte> bytes(kFrontBytes);
  co_await window.read(world, HostOffset(offset), bytes);
  Luks2Binary binary = co_await parse_luks2_binary(bytes, which, offset, refusal);
  // At most kLuks2HeaderBytesMax, and no more than the file has.
  if (binary.header_bytes > window.size().value() - offset) {
    co_return refusal.corrupt("the file ends within its LUKS2 header");
  }
  bytes.resize(binary.header_bytes);
  const MutableBytes rest = MutableBytes(bytes).subspan(kFrontBytes);
  co_await window.read(world, HostOffset(offset + kFrontBytes), rest);
  co_return parse_copy(std::move(binary), bytes, refusal);
}

// The second copy where the first one does not tell its place: at one of nine. What is wrong with
// one says more than that there is no first one.
Task<ReadCopy> find_second_copy(const World& world, HeaderWindow window, Error otherwise) {
  for (uint64_t at = kLuks2HeaderBytesMin; at <= kLuks2HeaderBytesMax; at *= 2) {
    if (at + kFrontBytes > window.size().value()) break;
    Result<ReadCopy> copy = co_await read_copy(world, window, Luks2Copy::kSecond, at).result();
    if (copy.ok()) co_return std::move(copy);
    // A file that cannot be read is not a file without a header.
    if (copy.error().kind == ErrorKind::kIo) co_return copy.error();
    const bool is_there = copy.error().kind != ErrorKind::kInvalid;
    if (is_there && otherwise.kind == ErrorKind::kInvalid) otherwise = copy.error();
  }
  co_return otherwise;
}

Result<Luks2Header> take(ReadCopy copy) {
  if (copy.unreadable) return *copy.unreadable;
  Luks2Header header;
  header.binary = std::move(copy.binary);
  header.json = std::move(copy.json);
  header.metadata = std::move(copy.metadata);
  return header;
}

// Of two right copies the newer one counts.
Result<Luks2Header> choose(ReadCopy first, ReadCopy second) {
  const uint64_t first_number = first.binary.sequence, second_number = second.binary.sequence;
  const std::array<std::byte, 64> salts[2] = {first.binary.salt, second.binary.salt};
  ReadCopy& newer = second_number > first_number ? second : first;
  ASSIGN_OR_RETURN(Luks2Header header, take(std::move(newer)));
  header.salts[0] = salts[0];
  header.salts[1] = salts[1];
  if (first_number == second_number) return header;
  header.bad_copy = second_number > first_number ? Luks2Copy::kFirst : Luks2Copy::kSecond;
  header.damage = "it is older than the other one";
  return header;
}

Result<Luks2Header> choose_only(ReadCopy right, Luks2Copy bad_copy, std::string damage) {
  ASSIGN_OR_RETURN(Luks2Header header, take(std::move(right)));
  const size_t bad = bad_copy == Luks2Copy::kFirst ? 0 : 1;
  header.salts[1 - bad] = header.binary.salt;
  RETURN_IF_ERROR(fill_with_secret_random(header.salts[bad]));
  header.bad_copy = bad_copy;
  header.damage = std::move(damage);
  return header;
}

constexpr size_t kFrontOfOthersBytes = 2 * kFrontBytes;

bool is_all_zero(Bytes bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte one) { return one == std::byte{0}; });
}

// Whether what lies in front is neither empty nor what damage could have made of a first copy: then
// its size or its UUID would be there still. Superblocks begin at 4096, too, where a first copy has
// its JSON. `front`: kFrontOfOthersBytes.
bool is_front_of_others(Bytes front, const Luks2Binary& right) {
  const Bytes behind = front.subspan(kFrontBytes);
  const bool is_empty =
      is_all_zero(front.first(kFrontBytes)) && (behind[0] == std::byte{'{'} || is_all_zero(behind));
  const bool has_size = load_be16(&front[6]) == 2 && load_be64(&front[8]) == right.header_bytes;
  const bool has_uuid =
      !right.uuid.empty() && text_field(front.subspan(168, kUuidFieldBytes)) == right.uuid;
  return !is_empty && !has_luks_magic(front) && !has_size && !has_uuid;
}

Task<Luks2Header> choose_second(const World& world, HeaderWindow window, ReadCopy second,
                                std::string damage) {
  Luks2Header header =
      co_await choose_only(std::move(second), Luks2Copy::kFirst, std::move(damage));
  std::vector<std::byte> front(kFrontOfOthersBytes);
  co_await window.read(world, HostOffset(0), front);
  header.is_overwritten = is_front_of_others(front, header.binary);
  if (header.is_overwritten) header.damage = "something else has been written over it";
  co_return std::move(header);
}

Task<Luks2Header> read_luks2(const World& world, HeaderWindow window) {
  Result<ReadCopy> first = co_await read_copy(world, window, Luks2Copy::kFirst, 0).result();
  if (!first.ok()) {
    const Error damage = first.error();
    if (damage.kind == ErrorKind::kIo) co_return damage;
    ReadCopy second = co_await find_second_copy(world, window, damage);
    co_return co_await choose_second(world, window, std::move(second), describe(world, damage))
        .result();
  }
  const uint64_t at = first.value().binary.header_bytes;
  Result<ReadCopy> second = co_await read_copy(world, window, Luks2Copy::kSecond, at).result();
  if (!second.ok()) {
    if (second.error().kind == ErrorKind::kIo) co_return second.error();
    co_return choose_only(std::move(first).value(), Luks2Copy::kSecond,
                          describe(world, second.error()));
  }
  co_return choose(std::move(first).value(), std::move(second).value());
}

Result<std::vector<std::byte>> encode_copy(const Luks2Header& header, Luks2Copy which,
                                           const Refusal& refusal) {
  Luks2Binary binary = header.binary;
  binary.salt = header.salts[which == Luks2Copy::kFirst ? 0 : 1];
  const std::string json = encode_json(header.json);
  if (json.size() >= binary.header_bytes - kLuks2BinaryBytes) {
    return refusal(ErrorKind::kNoSpace,
                   "the metadata of the LUKS2 header has no room for more; remove a key slot or a "
                   "token first");
  }
  return encode_luks2_copy(binary, which, json);
}

Task<void> write_copy(const World& world, HeaderWindow window, const Luks2Header& header,
                      Luks2Copy which) {
  std::vector<std::byte> bytes = co_await encode_copy(header, which, window.refusal(world));
  const uint64_t at = which == Luks2Copy::kFirst ? 0 : header.binary.header_bytes;
  co_await window.write(world, HostOffset(at), bytes);
  co_await window.flush();
}

}  // namespace

Task<LuksHeader> read_header(const World& world, HeaderWindow window) {
  const Refusal refusal = window.refusal(world);
  std::array<std::byte, kLuks1HeaderBytes> front = {};
  const size_t there = std::min<uint64_t>(front.size(), window.size().value());
  co_await window.read(world, HostOffset(0), MutableBytes(front).first(there));
  LuksHeader header;
  const bool is_luks = as_text(Bytes(front).first(kMagic.size())) == kMagic;
  if (is_luks && front[6] == std::byte{0} && front[7] == std::byte{1}) {
    Luks1Header luks1 = co_await parse_luks1_header(Bytes(front).first(there), refusal);
    header.luks1 = std::move(luks1);
    co_return std::move(header);
  }
  if (!is_luks && window.size().value() < kFrontBytes) {
    co_return refusal.invalid("there is no LUKS header");
  }
  Luks2Header luks2 = co_await read_luks2(world, window);
  header.luks2 = std::move(luks2);
  co_return std::move(header);
}

std::string damage_of(const Luks2Header& header) {
  if (!header.bad_copy) return "";
  const bool is_first = *header.bad_copy == Luks2Copy::kFirst;
  return (is_first ? "primary header damaged, read from the second copy: "
                   : "second copy of the header damaged, read from the primary one: ") +
         header.damage;
}

Task<FormatRemains> find_remains(const World& world, StorageAccess& storage) {
  FormatRemains remains;
  const HeaderWindow window(storage);
  Result<LuksHeader> header = co_await read_header(world, window).result();
  if (!header.ok() || !header.value().luks2) co_return std::move(remains);
  const Luks2Header& luks2 = *header.value().luks2;
  if (luks2.bad_copy != Luks2Copy::kFirst) co_return std::move(remains);
  remains.format = "luks";
  remains.what = "the second copy of a LUKS2 header";
  remains.is_overwritten = luks2.is_overwritten;
  co_return std::move(remains);
}

Result<VolumeFacts> supported_facts(const World& world, const HeaderWindow& window,
                                    const LuksHeader& header) {
  const Refusal refusal = window.refusal(world);
  VolumeFacts facts;
  if (header.luks1) {
    facts = facts_of(*header.luks1);
  } else {
    RETURN_IF_ERROR(check_luks2_supported(header.luks2->metadata, refusal));
    facts = facts_of(header.luks2->binary, header.luks2->metadata);
  }
  for (const KeySlot& slot : facts.slots) {
    const uint64_t end = slot.area.value() + material_bytes(slot.key_bytes);
    if (end <= window.size().value()) continue;
    return refusal.corrupt("the file ends within key slot " + std::to_string(slot.number));
  }
  return facts;
}

Result<void> check_not_overwritten(const World& world, const HeaderWindow& window,
                                   const LuksHeader& header) {
  if (!header.luks2 || !header.luks2->is_overwritten) return {};
  return window.refusal(world)(
      ErrorKind::kDenied,
      "something else has been written over the first copy of the LUKS2 header; where this is a "
      "LUKS disk still, 'ringdisk check -f luks -r all' writes it anew from the second one");
}

void warn_of_damage(const World& world, const HeaderWindow& window, const LuksHeader& header) {
  if (!header.luks2 || !header.luks2->bad_copy) return;
  const std::string_view remedy = header.luks2->is_overwritten
                                      ? "; 'ringdisk check -f luks -r all' writes it anew from the "
                                        "other one, over whatever there is"
                                      : "; an open for writing repairs it from the other one";
  world.log.warning(window.storage().node().name() + ": the " +
                    std::string(ordinal(*header.luks2->bad_copy)) +
                    " copy of the LUKS2 header is not used, because " + header.luks2->damage +
                    std::string(remedy));
}

Task<void> repair_header(const World& world, HeaderWindow window, LuksHeader& header) {
  if (!header.luks2 || !header.luks2->bad_copy) co_return;
  Luks2Header& luks2 = *header.luks2;
  const Luks2Copy bad = *luks2.bad_copy;
  co_await write_copy(world, window, luks2, bad);
  world.log.warning(window.storage().node().name() + ": the " + std::string(ordinal(bad)) +
                    " copy of the LUKS2 header was written anew from the other one, because " +
                    luks2.damage);
  luks2.bad_copy.reset();
  luks2.damage.clear();
  luks2.is_overwritten = false;
}

Task<VolumeFacts> ready_for_change(const World& world, HeaderWindow window, LuksHeader& header) {
  VolumeFacts facts = co_await supported_facts(world, window, header);
  co_await check_not_overwritten(world, window, header);
  co_await repair_header(world, window, header);
  co_return std::move(facts);
}

Task<void> write_luks2_header(const World& world, HeaderWindow window, Luks2Header& header) {
  CHECK(!header.bad_copy);
  const Refusal refusal = window.refusal(world);
  if (header.binary.sequence == ~uint64_t{0}) {
    co_await fail(refusal.corrupt("the LUKS2 header has the last sequence number there is"));
  }
  ++header.binary.sequence;
  // What could not be read again is not written.
  Luks2Metadata metadata =
      co_await read_luks2_metadata(header.json, header.binary.header_bytes, refusal);
  header.metadata = std::move(metadata);
  co_await write_copy(world, window, header, Luks2Copy::kFirst);
  co_await write_copy(world, window, header, Luks2Copy::kSecond);
}

Task<void> write_luks1_header(const World& world, HeaderWindow window, const Luks1Header& header) {
  const std::array<std::byte, kLuks1HeaderBytes> bytes = encode_luks1_header(header);
  co_await window.write(world, HostOffset(0), bytes);
  co_await window.flush();
}

}  // namespace ringdisk::luks
