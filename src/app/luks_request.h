// SPDX-License-Identifier: Apache-2.0
// What the options of `ringdisk luks` say, judged before a file is opened. Pure.
#pragma once

#include <array>
#include <optional>
#include <string>

#include "app/command_line.h"
#include "control/secret_file.h"
#include "luks/config.h"
#include "luks/format.h"
#include "luks/keys.h"

namespace ringdisk {

enum class LuksAction : uint8_t {
  kFormat,
  kAddKey,
  kChangeKey,
  kRemoveKey,
  kKillSlot,
  kTestKey,
  kConfig,
  kErase,
  kDump,
  kHeaderBackup,
  kHeaderRestore,
};

// Of the header's file.
bool reads_only(LuksAction action);

struct LuksRequest {
  LuksAction action = LuksAction::kDump;
  std::string file;    // as named
  std::string header;  // where the header is detached; else empty
  std::string backup;  // header-backup, header-restore
  std::optional<uint32_t> slot;
  luks::FormatRequest format;  // without passphrase and key
  luks::KdfChoice kdf;
  luks::HeaderConfig config;
  KeyFilePart new_key_file;
  bool force = false;
  bool yes = false;
  bool as_json = false;

  // The file in which the header lies.
  const std::string& header_file() const { return header.empty() ? file : header; }
};

std::span<const OptionSpec> luks_options();

Result<LuksRequest> read_luks_request(const Arguments& arguments, Diagnostics& diagnostics);

}  // namespace ringdisk
