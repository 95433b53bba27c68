// SPDX-License-Identifier: Apache-2.0
// The options of `ringdisk luks`, called as cryptsetup calls them.
#include "app/luks_request.h"

#include <algorithm>

#include "app/image_command_options.h"
#include "app/images.h"
#include "app/key_file.h"
#include "base/diagnostics.h"

namespace ringdisk {
namespace {

constexpr std::array<OptionSpec, 31> kOptions = {{
    {0, "type", "TYPE", "format: luks2 (default) or luks1"},
    {'c', "cipher", "CIPHER", "format: aes-xts-plain64 (default), aes-cbc-essiv:sha256, ..."},
    {'s', "key-size", "BITS", "format: bits of the volume key (default 512; 256 for cbc)"},
    {0, "hash", "HASH", "hash of key derivation (default sha256)"},
    {0, "pbkdf", "KDF", "argon2id (default of LUKS2), argon2i or pbkdf2"},
    {'i', "iter-time", "MS", "milliseconds that opening a slot is to take (default 2000)"},
    {0, "pbkdf-force-iterations", "N", "that many iterations instead"},
    {0, "pbkdf-memory", "KIB", "memory of Argon2, at most (with forced iterations: exactly)"},
    {0, "pbkdf-parallel", "N", "threads of Argon2, 1 to 4"},
    {0, "sector-size", "BYTES", "format: 512 (default), 1024, 2048 or 4096"},
    {0, "label", "TEXT", "format, config: label of the volume (LUKS2)"},
    {0, "subsystem", "TEXT", "format, config: subsystem of the volume (LUKS2)"},
    {0, "uuid", "UUID", "format, config: that one (default of format: a new one)"},
    {0, "priority", "WHICH", "config: slot -S is tried first (prefer), normal, or ignore"},
    {'o', "offset", "SECTORS", "format: where the data begins, in sectors of 512 bytes"},
    {0, "luks2-metadata-size", "SIZE", "format: of each of the two copies, 16k to 4M"},
    {0, "luks2-keyslots-size", "SIZE", "format: of the area of all key slots"},
    {0, "header", "FILE", "the header is in FILE, not in front of the data"},
    {'S', "key-slot", "N", "the slot to fill, to change or to open"},
    {0, "volume-key-file", "PATH", "the volume key itself, instead of a passphrase"},
    {0, "key-secret", "ID", "the passphrase is the --object secret called ID"},
    {0, "new-key-file", "PATH", "the new passphrase: a file, fd:N, or - (standard input)"},
    {0, "new-keyfile-size", "BYTES", "so many bytes of that file (default: all)"},
    {0, "new-keyfile-offset", "BYTES", "from there on"},
    {0, "new-key-secret", "ID", "the new passphrase is the --object secret called ID"},
    {0, "header-backup-file", "PATH", "where the backup goes, or comes from"},
    {0, "force", "", "overwrite what is there; remove the last key slot"},
    {0, "yes", "", "erase: do not ask"},
    kOutputOption,
    kForceShareOption,
    kQuietOption,
}};

struct Verb {
  std::string_view name, other_name;  // the second as cryptsetup has it
  LuksAction action;
  size_t words;
};

constexpr std::array<Verb, 11> kVerbs = {{
    {"format", "luksFormat", LuksAction::kFormat, 1},
    {"add-key", "luksAddKey", LuksAction::kAddKey, 1},
    {"change-key", "luksChangeKey", LuksAction::kChangeKey, 1},
    {"remove-key", "luksRemoveKey", LuksAction::kRemoveKey, 1},
    {"kill-slot", "luksKillSlot", LuksAction::kKillSlot, 2},
    {"test-key", "test-passphrase", LuksAction::kTestKey, 1},
    {"config", "luksUUID", LuksAction::kConfig, 1},
    {"erase", "luksErase", LuksAction::kErase, 1},
    {"dump", "luksDump", LuksAction::kDump, 1},
    {"header-backup", "luksHeaderBackup", LuksAction::kHeaderBackup, 1},
    {"header-restore", "luksHeaderRestore", LuksAction::kHeaderRestore, 1},
}};

constexpr uint64_t kNumberMax = ~uint32_t{0};

// One command line being read.
class RequestReader {
 public:
  RequestReader(const Arguments& arguments, Diagnostics& diagnostics)
      : arguments_(arguments), diagnostics_(diagnostics) {}

  Result<LuksRequest> read() {
    RETURN_IF_ERROR(read_words());
    RETURN_IF_ERROR(refuse_misplaced());
    RETURN_IF_ERROR(read_kdf());
    if (request_.action == LuksAction::kFormat) RETURN_IF_ERROR(read_format());
    if (request_.action == LuksAction::kConfig) RETURN_IF_ERROR(read_config());
    return std::move(request_);
  }

 private:
  Result<void> read_words();
  Result<void> refuse_misplaced();
  Result<void> read_kdf();
  Result<void> read_format();
  Result<void> read_cipher();
  Result<void> read_config();
  Result<uint64_t> number(std::string_view key, uint64_t otherwise, uint64_t most) const {
    return size_argument(arguments_, key, otherwise, 0, most, diagnostics_);
  }
  Result<std::optional<uint32_t>> optional_number(std::string_view key) const {
    if (!arguments_.has(key)) return std::optional<uint32_t>();
    ASSIGN_OR_RETURN(const uint64_t value, number(key, 0, kNumberMax));
    return std::optional<uint32_t>(static_cast<uint32_t>(value));
  }
  Error wrong(std::string text) const { return usage_error(diagnostics_, std::move(text)); }

  const Arguments& arguments_;
  Diagnostics& diagnostics_;
  LuksRequest request_;
};

Result<void> RequestReader::read_words() {
  std::string known;
  const std::vector<std::string>& names = arguments_.names();
  const Verb* verb = nullptr;
  for (const Verb& one : kVerbs) {
    known += (known.empty() ? "" : ", ") + std::string(one.name);
    const bool is_it = !names.empty() && (names[0] == one.name || names[0] == one.other_name);
    if (is_it) verb = &one;
  }
  if (verb == nullptr) {
    return wrong("expecting what to do with a LUKS volume; there are: " + known);
  }
  if (names.size() != 1 + verb->words) {
    return wrong("luks " + std::string(verb->name) + " takes " +
                 (verb->words == 1 ? "one file name" : "a file name and a key slot"));
  }
  request_.action = verb->action;
  request_.file = names[1];
  request_.header = arguments_.value("header").value_or("");
  request_.force = arguments_.has("force");
  request_.yes = arguments_.has("yes");
  request_.backup = arguments_.value("header-backup-file").value_or("");
  ASSIGN_OR_RETURN(request_.slot, optional_number("key-slot"));
  ASSIGN_OR_RETURN(request_.new_key_file, key_file_part(arguments_, "new-", diagnostics_));
  ASSIGN_OR_RETURN(request_.as_json, wants_json(arguments_, diagnostics_));
  if (verb->words == 1) return {};
  const std::optional<uint64_t> slot = luks::parse_decimal(names[2]);
  if (!slot || *slot > kNumberMax) return wrong("'" + names[2] + "' is no number of a key slot");
  request_.slot = static_cast<uint32_t>(*slot);
  return {};
}

// Options that would be silently without effect.
Result<void> RequestReader::refuse_misplaced() {
  const LuksAction action = request_.action;
  const bool is_format = action == LuksAction::kFormat;
  const bool is_backup =
      action == LuksAction::kHeaderBackup || action == LuksAction::kHeaderRestore;
  const bool makes_slot =
      is_format || action == LuksAction::kAddKey || action == LuksAction::kChangeKey;
  auto misplaced = [&](std::initializer_list<std::string_view> keys) -> std::string {
    for (std::string_view key : keys) {
      if (arguments_.has(key)) return std::string(key);
    }
    return "";
  };
  std::string key;
  if (!is_format) {
    key = misplaced({"type", "cipher", "key-size", "sector-size", "offset", "luks2-metadata-size",
                     "luks2-keyslots-size"});
  }
  const bool is_config = action == LuksAction::kConfig;
  if (key.empty() && !is_config) key = misplaced({"priority"});
  if (key.empty() && !is_config && !is_format) key = misplaced({"label", "subsystem", "uuid"});
  if (key.empty() && action != LuksAction::kErase) key = misplaced({"yes"});
  if (key.empty() && action == LuksAction::kErase) key = misplaced({"force", "key-slot"});
  if (key.empty() && (is_config || action == LuksAction::kErase)) {
    key = misplaced({"volume-key-file", "key-secret", "key-file"});
  }
  if (key.empty() && !makes_slot) {
    key = misplaced(
        {"hash", "pbkdf", "iter-time", "pbkdf-force-iterations", "pbkdf-memory", "pbkdf-parallel"});
  }
  const bool has_new = action == LuksAction::kAddKey || action == LuksAction::kChangeKey;
  if (key.empty() && !has_new) {
    key = misplaced({"new-key-file", "new-key-secret", "new-keyfile-size", "new-keyfile-offset"});
  }
  if (key.empty() && !is_backup) key = misplaced({"header-backup-file"});
  if (key.empty() && action != LuksAction::kDump) key = misplaced({"output"});
  const bool is_read = reads_only(action);
  if (key.empty() && !is_read) key = misplaced({kForceShareOption.key()});
  if (!key.empty())
    return wrong("'--" + key + "' has no meaning for luks " + arguments_.names()[0]);
  if (is_backup && request_.backup.empty())
    return wrong("say with --header-backup-file=PATH where the backup is");
  return {};
}

Result<void> RequestReader::read_kdf() {
  luks::KdfChoice& kdf = request_.kdf;
  if (const std::optional<std::string> name = arguments_.value("pbkdf")) {
    kdf.kind = luks::find_kdf(*name);
    if (!kdf.kind) return wrong("'" + *name + "' is not one of argon2id, argon2i, pbkdf2");
  }
  if (const std::optional<std::string> name = arguments_.value("hash")) {
    const std::optional<Hash> hash = find_hash(*name);
    if (!hash) return wrong("the hash '" + *name + "' is not known; sha256 and sha512 are usual");
    kdf.hash = *hash;
  }
  ASSIGN_OR_RETURN(const uint64_t milliseconds, number("iter-time", 2000, 3'600'000));
  kdf.milliseconds = static_cast<uint32_t>(milliseconds);
  ASSIGN_OR_RETURN(kdf.iterations, optional_number("pbkdf-force-iterations"));
  ASSIGN_OR_RETURN(kdf.memory_kib, optional_number("pbkdf-memory"));
  ASSIGN_OR_RETURN(kdf.lanes, optional_number("pbkdf-parallel"));
  return {};
}

Result<void> RequestReader::read_cipher() {
  luks::FormatRequest& format = request_.format;
  const std::string text = arguments_.value("cipher").value_or("aes-xts-plain64");
  Result<CipherSpec> cipher = CipherSpec::parse(text);
  if (!cipher.ok()) return wrong("'" + text + "' is no cipher, such as aes-xts-plain64");
  format.cipher = std::move(cipher).value();
  const uint64_t usual = format.cipher.mode == "xts" ? 512 : 256;
  ASSIGN_OR_RETURN(const uint64_t bits, number("key-size", usual, luks::kKeyBytesMax * 8));
  if (bits % 8 != 0) return wrong("--key-size is a multiple of 8 bits");
  format.key_bytes = bits / 8;
  return {};
}

Result<void> RequestReader::read_format() {
  luks::FormatRequest& format = request_.format;
  const std::string type = arguments_.value("type").value_or("luks2");
  if (type != "luks1" && type != "luks2")
    return wrong("--type is luks1 or luks2, not '" + type + "'");
  format.version = type == "luks1" ? 1 : 2;
  for (const std::string_view key : {"luks2-metadata-size", "luks2-keyslots-size"}) {
    if (format.version == 1 && arguments_.has(key)) {
      return wrong("'--" + std::string(key) + "' has no meaning for luks1");
    }
  }
  RETURN_IF_ERROR(read_cipher());
  format.kdf = request_.kdf;
  format.hash = request_.kdf.hash;
  format.label = arguments_.value("label").value_or("");
  format.subsystem = arguments_.value("subsystem").value_or("");
  format.uuid = arguments_.value("uuid").value_or("");
  format.is_detached = !request_.header.empty();
  format.slot = request_.slot.value_or(0);
  ASSIGN_OR_RETURN(const uint64_t sector_size, number("sector-size", 512, kNumberMax));
  format.sector_size = static_cast<uint32_t>(sector_size);
  if (arguments_.has("offset")) {
    ASSIGN_OR_RETURN(const uint64_t sectors, number("offset", 0, kOffsetMax / 512));
    format.payload_offset = ByteCount(sectors * 512);
  }
  ASSIGN_OR_RETURN(format.luks2_header_bytes,
                   number("luks2-metadata-size", luks::kLuks2HeaderBytesMin, kNumberMax));
  if (arguments_.has("luks2-keyslots-size")) {
    ASSIGN_OR_RETURN(const uint64_t bytes, number("luks2-keyslots-size", 0, kNumberMax));
    format.luks2_slot_area_bytes = bytes;
  }
  return {};
}

Result<void> RequestReader::read_config() {
  luks::HeaderConfig& config = request_.config;
  config.label = arguments_.value("label");
  config.subsystem = arguments_.value("subsystem");
  config.uuid = arguments_.value("uuid");
  const std::optional<std::string> priority = arguments_.value("priority");
  if (priority.has_value() != request_.slot.has_value()) {
    return wrong("--priority=prefer|normal|ignore and -S N go together: the key slot it is about");
  }
  if (priority) {
    constexpr std::array<std::string_view, 3> kPriorities = {"ignore", "normal", "prefer"};
    const auto found = std::ranges::find(kPriorities, *priority);
    if (found == kPriorities.end()) {
      return wrong("--priority is prefer, normal or ignore, not '" + *priority + "'");
    }
    config.slot_priority = static_cast<uint32_t>(found - kPriorities.begin());
    config.slot = *request_.slot;
  }
  if (!config.is_empty()) return {};
  return wrong(
      "luks config: say what is to be changed, with --label, --subsystem, --uuid or "
      "--priority");
}

}  // namespace

bool reads_only(LuksAction action) {
  return action == LuksAction::kDump || action == LuksAction::kHeaderBackup ||
         action == LuksAction::kTestKey;
}

std::span<const OptionSpec> luks_options() { return kOptions; }

Result<LuksRequest> read_luks_request(const Arguments& arguments, Diagnostics& diagnostics) {
  return RequestReader(arguments, diagnostics).read();
}

}  // namespace ringdisk
